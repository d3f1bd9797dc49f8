# SPDX-License-Identifier: Apache-2.0
"""With a control plane that speaks Istiod's workload API: services and authorization on real pods."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ci.cluster import kmesh
from tests.cluster.conftest import SHOP, Cluster
from tests.launch.conftest import until

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.cluster]

# Serves a service and its pods (a JSON object of their addresses), and the policies that a file names.
_ISTIOD = """
import asyncio, json, pathlib, sys
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.mesh_messages import service, service_name, uid, workload
from tests.source.istiod.policy_file import serve
from tests.source.istiod.xds_server import XdsServer

async def main():
    server, pods = XdsServer(), json.loads(sys.argv[2])
    server.port = 15010
    web = service("web", sys.argv[3], ports={80: 8080})
    server.put(ADDRESS_TYPE, service_name("web"), web, version="1")
    for name, address in pods.items():
        serves = ("web",) if name.startswith("web") else ()
        made = workload(name, address, serves=serves, service_account=name[:3], node="node1")
        server.put(ADDRESS_TYPE, uid(name), made, version="1")
    await serve(server, pathlib.Path(sys.argv[1]))

asyncio.run(main())
"""
ONLY_OTHERS: dict[str, Any] = {
    "scope": "NAMESPACE",
    "action": "ALLOW",
    "groups": [{"rules": [{"matches": [{"principals": [{"suffix": "/ns/shop/sa/other"}]}]}]}],
}


class Istiod:
    """The control plane; policies by name."""

    def __init__(self, policies: Path) -> None:
        self._policies = policies

    def say(self, **policies: dict[str, Any]) -> None:
        draft = self._policies.with_suffix(".new")
        draft.write_text(json.dumps(policies))
        draft.replace(self._policies)


@pytest.fixture
def istiod(labelled: Cluster, tmp_path: Path, checkout: Path) -> Iterator[Istiod]:
    """The daemon takes everything from a control plane; from the API server again afterwards."""
    made = Istiod(tmp_path / "policies.json")
    made.say()
    pods = labelled.get("-n", SHOP, "pods")["items"]
    addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
    arguments = (str(tmp_path / "policies.json"), json.dumps(addresses), labelled.address)
    argv = labelled.machine.inside(["env", f"PYTHONPATH={checkout}", sys.executable, "-c", _ISTIOD])
    with subprocess.Popen([*argv, *arguments], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "up\n"
            xds = {"address": "127.0.0.1:15010"}
            kmesh.install(labelled.machine, {**kmesh.VALUES, "source": "istiod", "xds": xds})
            yield made
        finally:
            server.kill()
            kmesh.install(labelled.machine)


def test_authorization_holds_also_while_the_daemon_is_replaced(
    labelled: Cluster, istiod: Istiod
) -> None:
    assert labelled.ctl("status")["sync"]["source"] == "istiod"
    assert set(labelled.ask(30)) == labelled.servers()
    istiod.say(only_others=ONLY_OTHERS)
    until(lambda: not set(labelled.ask(2)) & labelled.servers(), "the policy is not enforced")
    (told,) = labelled.ctl("policies")["policies"]
    assert (told["name"], told["decided"]) == ("only_others", "kernel")
    assert told["guards"]
    before = labelled.identity()
    labelled.kubectl("-n", kmesh.NAMESPACE, "delete", "pod", "-l", "app=kmesh", "--wait=false")
    for _ in range(5):
        assert not set(labelled.ask(4)) & labelled.servers(), "open while the daemon was away"
    labelled.until_ready(other_than=before)
    assert not set(labelled.ask(4)) & labelled.servers()
    istiod.say()
    until(lambda: set(labelled.ask(20)) == labelled.servers(), "still refused")
