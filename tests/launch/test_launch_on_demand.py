# SPDX-License-Identifier: Apache-2.0
"""--on-demand: Istiod is asked for what managed workloads connect to, and for nothing else."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from runtime.launch.on_demand import OnDemand
from runtime.model.mesh import IPAddress
from runtime.source.istiod.wire import AUTHORIZATION_TYPE
from runtime.tables.telemetry_layout import TcpFlow
from runtime.telemetry.event import Fields
from tests.dataplane.world import Agent
from tests.launch.actors import add_addresses, managed_client, server
from tests.launch.conftest import Node
from tests.launch.control_plane import SOURCE, ControlPlane
from tests.launch.mesh import (
    ECHO,
    ECHO_PODS,
    ECHO_PORT,
    INTRUDER,
    NODE_NAME,
    made_service,
    nobody_from,
    pod,
)
from tests.tables.tables_model import mapped

OTHER = "10.96.0.40"


def event(destination: str, *, service: str = "::", direction: int = 1) -> Fields:
    flow = TcpFlow(mapped("10.0.0.1"), mapped(destination), ip_address(service).packed, b"\0\x50", b"\0\0", direction)  # fmt: skip
    return (flow.pack(), b"\0\0", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)


def test_each_unknown_address_is_asked_for_once_and_the_oldest_let_go() -> None:
    asked: list[IPAddress] = []
    released: list[IPAddress] = []
    demands = OnDemand(ask=asked.append, release=released.append, most=2)
    demands.take([event("10.0.0.2"), event("10.0.0.2"), event("fd00::2")])
    demands.take([event("10.0.0.9", direction=2), event("10.0.0.9", service="fd00::1")])
    assert asked == [ip_address("10.0.0.2"), ip_address("fd00::2")]
    demands.take([event("10.0.0.2"), event("10.0.0.3")])
    assert released == [ip_address("fd00::2")]
    assert len(demands) == 2
    demands.take([event("fd00::2")])  # needed again: asked for again
    assert asked[-1] == ip_address("fd00::2")


@pytest.fixture
def mesh(node: Node) -> ControlPlane:
    """Two services, each answered by "cluster" at its own address, as a cluster's proxy would."""
    add_addresses(node, *ECHO_PODS, INTRUDER, ECHO, OTHER)
    server(
        node,
        ("tcp", ECHO_PODS[0], ECHO_PORT, "echo-0"),
        ("tcp", ECHO, ECHO_PORT, "cluster"),
        ("tcp", OTHER, ECHO_PORT, "cluster"),
    )
    made = ControlPlane(node)
    for name, address in (("echo", ECHO), ("other", OTHER)):
        made.put_address(made_service(name, address, ECHO_PORT, "TCP"), aliases=(f"/{address}",))
    # Istiod sends a service's workloads with it.
    made.put_address(pod("echo-0", ECHO_PODS[0], "echo", ECHO_PORT), aliases=(f"/{ECHO}",))
    return made.start()


def answer(client: Agent, host: str) -> str:
    number = client("connect", "tcp", host, ECHO_PORT)
    if not isinstance(number, int):
        return str(number)
    said = bytes.fromhex(client("say", number, "?")).decode()
    client("close", number)
    return said.removesuffix(" ?")


@pytest.mark.root
def test_what_is_connected_to_is_asked_for_and_then_governed(
    node: Node, mesh: ControlPlane
) -> None:
    daemon = node.daemon("--node", NODE_NAME, "--on-demand", source=SOURCE).wait_ready()
    assert node.ask("status")["counts"]["services"] == 0
    client = managed_client(node)
    assert answer(client, ECHO) == "cluster"  # the first goes as without us
    node.until(lambda: answer(client, ECHO) == "echo-0", "never asked for")
    status = node.ask("status")
    assert status["counts"]["services"] == 1
    assert status["sync"]["details"]["on_demand"] is True
    assert f"/{ECHO}" in mesh.state()["asked"]
    assert f"/{OTHER}" not in mesh.state()["asked"]
    assert daemon.terminate() == 0, daemon.log


@pytest.mark.root
def test_the_first_policy_has_the_whole_mesh_held(node: Node, mesh: ControlPlane) -> None:
    node.daemon("--node", NODE_NAME, "--on-demand", source=SOURCE).wait_ready()
    name = "istio-system/no-intruder"
    mesh.put(name, nobody_from(INTRUDER), type_url=AUTHORIZATION_TYPE)
    mesh.push()
    node.until(lambda: node.ask("status")["counts"]["services"] == 2, "the mesh is not whole")
    assert node.ask("status")["sync"]["details"]["on_demand"] is False
    client = managed_client(node)
    node.until(
        lambda: (
            client("connect", "tcp", ECHO_PODS[0], ECHO_PORT, INTRUDER) == "ConnectionRefusedError"
        ),
        "the policy is not enforced",
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "source", "why"),
    [
        (("--on-demand",), "", "cannot be asked on demand"),
        (("--on-demand", "--no-telemetry"), SOURCE, "--on-demand needs telemetry"),
    ],
)
def test_what_cannot_be_on_demand_says_why(
    node: Node, arguments: tuple[str, ...], source: str, why: str
) -> None:
    daemon = node.daemon(*arguments, source=source)
    assert daemon.wait() == 1
    assert why in daemon.log
    assert "hint: " in daemon.log
    assert not node.pins.exists()
