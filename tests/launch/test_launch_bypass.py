# SPDX-License-Identifier: Apache-2.0
"""`kmesh run --acceleration` on the enhanced path: requests to a managed server of the node go past TCP."""

from __future__ import annotations

import sys

import pytest

from runtime.bpf.maps import BpfMap
from tests.dataplane.enhanced_stage import HTTP_AGENT
from tests.dataplane.world import Agent
from tests.launch.actors import talking
from tests.launch.conftest import Node, until
from tests.launch.test_launch_enhanced import Mesh, mesh  # noqa: F401 - a fixture

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

_VIP, _ADDRESS = "10.96.0.30", "127.0.0.1"


def _managed(node: Node) -> Agent:
    run = [sys.executable, "-m", "runtime.cli.main", "exec", "--", sys.executable, str(HTTP_AGENT)]
    return talking(node, run)


def _service(port: int) -> str:
    return (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: near}\n"
        f"spec: {{clusterIP: {_VIP}, ports: [{{name: http, port: 80, targetPort: {port}}}]}}\n"
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: near-1, labels: {kubernetes.io/service-name: near}}\n"
        f"addressType: IPv4\nports: [{{name: http, port: {port}}}]\n"
        f"endpoints: [{{addresses: [{_ADDRESS}]}}]\n"
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: near}\n"
        "spec:\n  parentRefs: [{group: '', kind: Service, name: near, port: 80}]\n"
        "  rules:\n  - matches: [{path: {type: PathPrefix, value: /near}}]\n"
        "    backendRefs: [{name: near, port: 80}]\n"
    )


def _ask(client: Agent, number: int, times: int) -> None:
    for size in range(times):
        answer = client("ask", number, f"/near/size/{size}")
        assert (answer[0], answer[1], answer[4]) == (200, "near", size)


def _shortened(mesh: Mesh) -> int:  # noqa: F811 - the fixture
    return int(mesh.status()["telemetry"]["http"]["past_tcp"]["requests"])


def test_from_off_to_on_and_off_again(mesh: Mesh) -> None:  # noqa: F811 - the fixture
    """The daemon is killed in between, and the connections of before are asked through all of it."""
    mesh.daemon.kill()
    mesh.start("--acceleration")
    assert "same-node acceleration: on" in mesh.daemon.log
    client, server = _managed(mesh.node), _managed(mesh.node)
    mesh.node.write(_service(server("serve", _ADDRESS, "near")), "near.yaml")
    asker = mesh.client()
    until(lambda: asker("try", _VIP, "/near")[0] == 200, "the service does not come")
    number = client("connect", _VIP, 80)
    _ask(client, number, 20)
    before = _shortened(mesh)
    assert before > 10
    assert f"past TCP: {before} of these, and " in mesh.node.kmeshctl("status")

    for _ in range(4):
        assert client("ask", number, "/no/route")[0] == 404
    # The first came behind a response past TCP: that is the gate's.
    assert mesh.status()["telemetry"]["http"]["answered"] == 3
    assert "3 answered by the kernel itself" in mesh.node.kmeshctl("status")

    mesh.daemon.kill()
    _ask(client, number, 10)
    mesh.start("--acceleration")
    assert _shortened(mesh) >= before + 10
    _ask(client, number, 10)
    assert _shortened(mesh) >= before + 20

    mesh.daemon.kill()
    mesh.start("--no-acceleration")
    _ask(client, number, 10)
    for _ in range(4):
        assert client("ask", number, "/no/route")[0] == 404
    assert mesh.status()["telemetry"]["http"]["answered"] == 3
    assert not _servers(mesh.node)
    assert "not accelerated: turned off" in mesh.node.kmeshctl("status")
    assert mesh.daemon.terminate() == 0
    assert not mesh.node.pins.exists() or not list(mesh.node.pins.iterdir())


def _servers(node: Node) -> list[bytes]:
    """Endpoints that take requests past TCP, as the kernel has them."""
    (pin,) = (node.pins / "enhanced").glob("*/servers")
    servers = BpfMap.pinned(pin)
    try:
        return list(servers.keys())
    finally:
        servers.close()
