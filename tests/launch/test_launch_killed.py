# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a real daemon under load: Istiod, telemetry and authorization in use, and a mesh that
is another one when the next daemon starts. How long that takes is measured by `make bench`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ci.bench.control_plane import whole_mesh
from runtime.source.istiod.wire import ADDRESS_TYPE
from runtime.tables.layout import Endpoint, FrontendKey
from runtime.tables.ops import Contents
from tests.launch.actors import add_addresses, server
from tests.launch.conftest import Node
from tests.launch.control_plane import SOURCE, ControlPlane
from tests.launch.mesh import (
    DNS_PODS,
    ECHO,
    ECHO_PORT,
    NODE_NAME,
    WAYPOINT_POD,
    Held,
    everything,
    made_service,
    pod,
    start_mesh,
)
from tests.launch.test_launch_recorded import contents
from tests.launch.test_launch_telemetry import sums
from tests.tables.tables_model import Maps, mapped

pytestmark = [pytest.mark.root, pytest.mark.slow]

MANY = 5000
NEW, NEW_POD, REPLACEMENT = "10.96.0.30", "10.244.0.30", "10.244.0.31"


def put_replaced(control_plane: ControlPlane) -> None:
    """The mesh without its 5,000 services; echo has another pod, and there is a new service."""
    control_plane.clear(type_url=ADDRESS_TYPE)
    for message in everything():
        if message.workload.name != "echo-0":
            control_plane.put_address(message, version="2")
    control_plane.put_address(pod("echo-new", REPLACEMENT, "echo", ECHO_PORT), version="2")
    control_plane.put_address(made_service("new", NEW, ECHO_PORT, "TCP"), version="2")
    control_plane.put_address(pod("new-0", NEW_POD, "new", ECHO_PORT), version="2")


def addresses(found: Contents) -> set[bytes]:
    """The services' addresses in the kernel."""
    return {FrontendKey.unpack(key).address for key in found.frontends}


def test_a_killed_daemon_costs_no_connection_and_what_vanished_meanwhile_is_gone(
    node: Node, tmp_path: Path
) -> None:
    control_plane = start_mesh(node)
    add_addresses(node, NEW_POD, REPLACEMENT)
    server(
        node,
        ("tcp", REPLACEMENT, ECHO_PORT, "echo-new"),
        ("tcp", NEW_POD, ECHO_PORT, "new-0"),
    )
    many = tmp_path / "many.pb"
    many.write_bytes(whole_mesh(MANY, 2))
    assert control_plane.load(many) == 3 * MANY
    daemon = node.daemon("--node", NODE_NAME, source=SOURCE).wait_ready()
    before = contents(node)
    assert len(addresses(before)) == MANY + 4
    held = Held(node)
    held.check()
    node.until(held.refused, "the policy is not enforced")
    held.client("load", ECHO, ECHO_PORT)
    node.until(lambda: held.client("answers"), "no load")
    daemon.kill()
    put_replaced(control_plane)
    assert contents(node) == before
    held.check()
    assert held.refused()
    again = node.daemon("--node", NODE_NAME, source=SOURCE).wait_ready()
    # Ready: what vanished has gone, and what is new is there.
    now = contents(node)
    assert addresses(now) == {mapped(one) for one in (ECHO, "10.96.0.21", "10.96.0.22", "10.96.0.23", NEW)}  # fmt: skip
    maps = Maps(now)
    maps.check_weights()
    assert maps.view()[mapped(ECHO), ECHO_PORT, 6] == {(mapped(REPLACEMENT), ECHO_PORT, 1): 1}
    endpoints = {Endpoint.unpack(value).address for value in now.slots.values()}
    assert endpoints == {mapped(one) for one in (*DNS_PODS, WAYPOINT_POD, REPLACEMENT, NEW_POD)}
    # Old connections hold, also the one whose endpoint is no longer any; new ones go elsewhere.
    held.check()
    held.introduce()
    assert held.refused(REPLACEMENT)
    new = held.client("connect", "tcp", NEW, ECHO_PORT)
    assert held.say(new, "?") == b"new-0 ?"
    fresh = held.client("connect", "tcp", ECHO, ECHO_PORT)
    assert held.say(fresh, "?") == b"echo-new ?"
    node.until(lambda: held.client("answers").get("echo-new ?", 0) > 20, "the load goes elsewhere")
    answers = held.client("end_load")
    assert set(answers) == {"echo-0 ?", "echo-new ?"}
    # A connection of before the kill is told of when it ends. (The ring buffer holds some 18,000
    # events: what a longer absence has no room for is counted as lost.)
    before_end = sums(node)["kmesh_tcp_connections_closed_total"]
    held.client("close", held.tcp)
    node.until(
        lambda: sums(node)["kmesh_tcp_connections_closed_total"] > before_end, "it is not told of"
    )
    assert again.terminate() == 0, again.log
    assert not node.pins.exists()
