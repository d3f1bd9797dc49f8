# SPDX-License-Identifier: Apache-2.0
"""Istio's own waypoint: named by its port for HBONE, reached at the one that l7-envoyfilter.yaml adds to it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernel.datapath import DataPath
from runtime.launch.config import Config
from runtime.launch.instance import whereabouts
from runtime.model.mesh import NamespacedHostname, Waypoint
from runtime.source.update import Update
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from tests.dataplane.test_dataplane_waypoint import http_service
from tests.dataplane.world import VIP4, Agent, World, refusal, serving, wait_for
from tests.helm.test_helm_waypoint_filter import config, patch
from tests.tables.tables_model import service

pytestmark = pytest.mark.root

HBONE = 15008
CONFIG = Config(
    mode="compat", source="", run_dir=Path(), pins=Path(), status_address="", metrics_address=""
)
THROUGH = Waypoint(destination=NamespacedHostname("ns", "wp"), port=HBONE)


@pytest.fixture
def envoy(world: World, checkout: Path, tmp_path: Path) -> Iterator[None]:
    """An Envoy with the listener of the manifest as it is, and what a waypoint has behind it."""
    path, log = tmp_path / "envoy.json", tmp_path / "log"
    path.write_text(json.dumps(config(patch(checkout))))
    argv = ["nsenter", f"--net={world.netns}", str(checkout / ".venv/bin/envoy"), "-c", str(path)]
    argv += ["--concurrency", "1", "--base-id", str(os.getpid())]
    with log.open("w") as stream, subprocess.Popen(argv, stdout=stream, stderr=stream) as process:
        try:
            wait_for(lambda: "starting workers" in log.read_text(), "Envoy")
            yield
        finally:
            process.kill()


def publish(path: DataPath, place: Place) -> None:
    tables = ServiceTables(place=place)
    user = replace(http_service(), waypoints=(THROUGH,))
    instance = serving("wp", "127.0.0.1", {("wp", HBONE): HBONE})
    services = (user, service("wp", ports=(HBONE,)))
    path.apply(tables.apply(Update(services=services, workloads=(instance,), complete=True)))


def test_connection_reaches_it_at_the_port_for_headers_by_default(
    client: Agent, datapath: DataPath, envoy: None
) -> None:
    publish(datapath, whereabouts(CONFIG).place)

    def answers() -> bool:
        return bool(client("http", 4, VIP4, 80, "/") == [[200, ""]])

    wait_for(answers, "the waypoint's own listener")  # a worker may have the other one before it


def test_without_the_pair_of_ports_it_is_asked_where_it_is_named(
    client: Agent, datapath: DataPath, envoy: None
) -> None:
    publish(datapath, Place(node="n1"))
    assert client("ask", 4, VIP4, 80) == {"errno": refusal()}
