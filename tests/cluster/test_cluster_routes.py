# SPDX-License-Identifier: Apache-2.0
"""HTTPRoutes of the API server on a node: their kind comes after the daemon, and the routes are planned."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import HELD, SHOP, Cluster
from tests.cluster.test_cluster_restart import delete_pod, load
from tests.launch.conftest import until

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.cluster]


def route(**rule: Any) -> str:
    parent = {"group": "", "kind": "Service", "name": "web", "port": 80}
    return json.dumps(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": SHOP},
            "spec": {"parentRefs": [parent], "rules": [rule]},
        }
    )


@pytest.fixture
def gateway_api(cluster: Cluster, checkout: Path) -> Iterator[None]:
    """The kinds of the Gateway API, which go again with all of their objects."""
    text = (checkout / "ci" / "cluster" / "gateway-api.yaml").read_text()
    cluster.machine.apply(text)
    try:
        waiting = ("--for=condition=Established", "crd", "--all", "--timeout=60s")
        cluster.kubectl("wait", *waiting)
        yield
    finally:
        cluster.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=text)


def test_routes_of_the_api_server_are_planned_and_go_with_their_kind(
    labelled: Cluster, gateway_api: None
) -> None:
    backend = {"name": "web", "port": 80}
    path = {"path": {"type": "PathPrefix", "value": "/api"}}
    labelled.machine.apply(route(name="api", matches=[path], backendRefs=[backend]))

    def planned() -> list[Any]:
        return list(labelled.ctl("routes", "--service", f"{SHOP}/web")["routes"])

    (told,) = until(planned, "the route does not come")
    assert "api" in told["route"]
    labelled.kubectl("-n", SHOP, "delete", "httproute", "web")
    until(lambda: not planned(), "the route does not go")


def test_daemon_that_is_replaced_touches_no_connection_that_has_routes(
    labelled: Cluster, gateway_api: None
) -> None:
    """Where the enhanced path runs they go by the gate, which is a process of the daemon's pod, and outlives that."""
    rest = {"backendRefs": [{"name": "web", "port": 80}]}
    labelled.machine.apply(route(name="all", **rest))
    until(
        lambda: labelled.ctl("routes", "--service", f"{SHOP}/web")["routes"],
        "the route does not come",
    )
    before = labelled.identity()
    argv = labelled.machine.inside(labelled.in_pod(HELD, labelled.address))
    with (
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as held,
        load(labelled) as result,
    ):
        assert held.stdin
        assert held.stdout
        print(file=held.stdin)
        assert held.stdout.readline().strip() in labelled.servers()
        delete_pod(labelled)
        print(file=held.stdin)
        assert held.stdout.readline().strip() in labelled.servers(), "its connection was closed"
        labelled.until_ready(other_than=before)
        print(file=held.stdin)
        assert held.stdout.readline().strip() in labelled.servers(), "its connection was closed"
        held.stdin.close()
        found = result()
    assert set(found) == {"answered"}, found
    assert found["answered"] > 50
