# SPDX-License-Identifier: Apache-2.0
"""Requests of one connection go where their routes say, in the kernel where it can be."""

from __future__ import annotations

from collections import Counter

import pytest

from runtime.model.http import DirectResponse, PathKind, PathMatch, Route, RouteMatch
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, VIP6, expect_shares, refusal

pytestmark = pytest.mark.root
MAPPED = f"::ffff:{VIP4}"


def test_each_request_of_a_connection_is_routed_and_most_are_in_the_kernel(routed: Stage) -> None:
    targets, before = ["/a/1", "/b/2", "/a/3", "/b/4"] * 10, routed.taken()
    assert routed.ask(targets) == ["a", "b"] * 20
    assert routed.taken() >= before + 30  # the first to each endpoint finds no connection to it
    assert routed.status()["idle"] == 2  # that is all it took


@pytest.mark.parametrize("address", [VIP4, VIP6, MAPPED])
def test_both_families_and_mapped_addresses(stage: Stage, address: str) -> None:
    stage.serve("a", host="::1" if address == VIP6 else "127.0.0.1")
    stage.route(table(to("/", "a")), VIP6 if address == VIP6 else VIP4)
    number, before = stage.client("connect", address, PORT), stage.taken()
    assert stage.client("peer", number) == [address, PORT]
    assert [stage.client("ask", number, "/")[1] for _ in range(5)] == ["a"] * 5
    assert stage.taken() >= before + 3


def test_no_route_is_404_and_a_status_of_the_routes_is_that_status(stage: Stage) -> None:
    denied = Route(
        match=RouteMatch(PathMatch(PathKind.PREFIX, "/no")), action=DirectResponse(status=403)
    )
    stage.serve("a")
    stage.route(table(denied, to("/a", "a")))
    assert stage.ask(["/a", "/no", "/a", "/elsewhere", "/a"]) == ["a", 403, "a", 404, "a"]


def test_no_endpoint_is_503_and_one_that_comes_serves_the_same_connection(stage: Stage) -> None:
    stage.ports.set_cluster("a", [])
    stage.route(table(to("/", "a")))
    number = stage.client("connect", VIP4, PORT)
    assert stage.client("ask", number, "/")[0] == 503
    stage.serve("a")
    assert stage.client("ask", number, "/")[:2] == [200, "a"]


def test_what_takes_a_waypoint_is_503_with_the_reason_and_nothing_else_is(stage: Stage) -> None:
    stage.serve("a")
    why = stage.route(table(to("/far", "a", beyond=("timeout: 3s",)), to("/", "a")))
    assert why == {0: "timeout: 3s"}
    number = stage.client("connect", VIP4, PORT)
    assert stage.client("ask", number, "/far")[:2] == [
        503,
        "it takes a waypoint, and there is none: timeout: 3s",
    ]
    assert stage.client("ask", number, "/near")[:2] == [200, "a"]


def test_a_reason_is_one_short_header_whatever_is_in_it(stage: Stage) -> None:
    stage.serve("a")
    evil = "metadata 'é\r\nx-evil: 1\r\n\r\n\0" + "y" * 5000
    stage.route(table(to("/far", "a", beyond=(evil,)), to("/long", "a", beyond=("timeout: 3s",))))
    number = stage.client("connect", VIP4, PORT)
    status, told = stage.client("ask", number, "/far")[:2]
    assert status == 503
    assert told.startswith("it takes a waypoint, and there is none: metadata '???x-evil: 1?????yyy")
    assert told.endswith("yyy...")
    assert len(told) == len("it takes a waypoint, and there is none: ") + 200
    # It has ended where it says: the next answer on the connection is the next request's.
    assert stage.client("ask", number, "/long")[1].endswith("none: timeout: 3s")


def test_routes_change_under_a_connection(routed: Stage) -> None:
    number, before = routed.client("connect", VIP4, PORT), routed.taken()
    for turn in range(6):
        first, second = ("a", "b") if turn % 2 else ("b", "a")
        routed.route(table(to("/a", first), to("/b", second)))
        for _ in range(5):
            assert routed.client("ask", number, "/a/x")[1] == first
            assert routed.client("ask", number, "/b/x")[1] == second
    assert routed.taken() >= before + 40


def test_a_port_that_has_no_routes_any_more_is_clear_about_it(routed: Stage) -> None:
    number = routed.client("connect", VIP4, PORT)
    assert routed.client("ask", number, "/a")[0] == 200
    routed.ports.remove_port(VIP4, PORT)
    assert routed.client("ask", number, "/a")[0] == 503


def test_weights_are_kept_whoever_serves(stage: Stage) -> None:
    stage.serve("a", "b", "c")
    weights = {"a": 1, "b": 3, "c": 6}
    stage.route(table(to("/", *weights.items())))

    def sample(times: int) -> Counter[str]:
        before = stage.taken()
        found = Counter(stage.ask(["/"] * 3000 * times))
        assert stage.taken() > before + 2500 * times
        return found

    expect_shares(sample, weights)


def test_endpoints_that_have_no_connection_yet_keep_their_share(stage: Stage) -> None:
    """The kernel's choice is the gate's: else those that have connections would get more."""
    names = "abcdefgh"

    def sample(times: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(times):  # each time with endpoints that are new
            ports = [stage.backend("serve", "127.0.0.1", name) for name in names]
            stage.ports.set_cluster("all", [Target("127.0.0.1", port) for port in ports])
            stage.route(table(to("/", "all")))
            found.update(answer for _ in range(40) for answer in stage.ask(["/"] * 20))
        return found

    expect_shares(sample, dict.fromkeys(names, 1))


def test_without_a_gate_a_service_with_routes_refuses(routed: Stage) -> None:
    other, gates = routed.world.agent(routed.cgroup), routed.path.maps["gates"]
    assert other("ask_nonblocking", 4, VIP4, PORT) in {0, 115}
    ((key, value),) = gates.items()
    gates.delete(key)
    try:
        assert other("ask_nonblocking", 4, VIP4, PORT) == refusal()
    finally:
        gates.update(key, value)


def test_who_was_not_sent_to_the_gate_is_turned_away(routed: Stage) -> None:
    stranger = routed.agent()
    assert stranger("whole", "127.0.0.1", routed.gate_port, "") == ""
