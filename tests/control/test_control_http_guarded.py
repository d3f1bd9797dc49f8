# SPDX-License-Identifier: Apache-2.0
"""Endpoints that are guarded come behind the table that asks for it; without it nobody gets to them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from runtime.errors import KmeshError
from runtime.model.http import Anything, HeaderMatch, RbacPolicy, TextKind, TextMatch
from runtime.model.http_picture import HttpChange
from runtime.model.mesh import Workload
from runtime.model.policy import Action, Policy, PolicyScope
from runtime.tables.enhanced_layout import HttpPort as HttpElement
from tests.control.test_control_http import World, endpoints, picture, table

FREE, GUARDED, MORE = "10.0.0.1", "10.0.0.8", "10.0.0.9"
POST = HeaderMatch(":method", TextMatch(TextKind.EXACT, "POST"))
DENY = Policy(
    name="p",
    namespace="bank",
    scope=PolicyScope.NAMESPACE,
    action=Action.DENY,
    rules=(RbacPolicy(name="r", permissions=(POST,), principals=(Anything(),)),),
)


def pod(address: str, namespace: str) -> Workload:
    at = (ip_address(address),)
    return Workload(uid=address, name=address, namespace=namespace, addresses=at, all_labels=True)


@pytest.fixture
def world() -> World:
    """Two services whose endpoints nobody guards; others would be."""
    made = World()
    pods = (pod(FREE, "shop"), pod(GUARDED, "bank"), pod(MORE, "bank"))
    assert made.bring(picture(), workloads=pods, policies=(DENY,), complete=True) == {}
    made.ports.take()
    return made


class Refused(dict[str, Exception]):
    """What is refused; connections to a port that has a table are not."""

    def __call__(self, _address: Any, _port: int) -> bool:
        return False


def written(world: World) -> list[Any]:
    return [one for one in world.ports.take() if one[0] in ("cluster", "table", "port")]


def change(*addresses: str) -> HttpChange:
    return HttpChange(endpoints={"a": endpoints("a", *addresses)})


def test_a_guarded_endpoint_comes_behind_its_rules(world: World) -> None:
    assert world.bring(change(GUARDED)) == {}
    first, *between, last = written(world)
    assert (first, last) == (("cluster", ("a", [])), ("cluster", ("a", [GUARDED])))
    assert between[:2] == [("table", "a"), ("port", "10.96.0.10")]
    world.bring(change(GUARDED, MORE))  # guarded alike: the table knows
    assert written(world)[0] == ("cluster", ("a", [GUARDED, MORE]))
    world.bring()
    assert [one for one in written(world) if one[0] != "port"] == []


def test_endpoints_that_stay_are_never_missing(world: World) -> None:
    world.bring(change(GUARDED, MORE))
    world.ports.take()
    world.bring(change(MORE, GUARDED), removed_policies=(DENY.key,))
    clusters = [about for what, about in written(world) if what == "cluster"]
    assert clusters == [("a", [MORE, GUARDED])]


def test_a_table_without_the_rules_of_now_is_shut(world: World) -> None:
    """It would let requests in for as long as there is no room for the one that has them."""
    shut: dict[str, bool] = {}
    point = world.ports.point

    def pointed(address: Any, port: int, which: Any, **how: Any) -> bytes:
        shut[str(address)] = getattr(which, "value", None) == HttpElement(0, 0, 0, 0, 0)
        return point(address, port, which, **how)

    world.ports.point = pointed  # type: ignore[assignment,method-assign]
    world.ports.refuse = {"table": KmeshError("no room in http_routes")}
    for _ in range(3):  # however often it is tried
        shut.clear()
        failed = world.bring(change(GUARDED))
        assert "no room in http_routes" in failed["route table a"]
        assert "all of 10.96.0.10 port 80 is the waypoint's" in failed["route table a"]
        assert shut == {"10.96.0.10": True, "10.96.0.11": False}
    world.ports.refuse = {}
    assert world.bring() == {}
    assert not shut["10.96.0.10"]


def test_a_table_whose_routes_alone_changed_serves_on(world: World) -> None:
    world.ports.refuse = {"table": KmeshError("no room in http_routes")}
    failed = world.bring(HttpChange(tables={"a": table("a", "b")}))
    assert "what it said before keeps serving" in failed["route table a"]


def test_a_port_that_cannot_be_pointed_at_the_rules_gets_no_new_endpoints(world: World) -> None:
    world.ports.refuse = Refused(port=KmeshError("no room in http_ports"))
    assert world.bring(change(GUARDED))
    assert ("cluster", ("a", [GUARDED])) not in written(world)
    world.ports.refuse = {}
    assert world.bring() == {}
    assert ("cluster", ("a", [GUARDED])) in written(world)
