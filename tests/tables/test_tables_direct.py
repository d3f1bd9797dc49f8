# SPDX-License-Identifier: Apache-2.0
"""Workloads with a waypoint of their own: which of their ports lead there, and who comes first."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from runtime.model.mesh import (
    AppProtocol,
    NamespacedHostname,
    NetworkMode,
    Service,
    ServicePort,
    Waypoint,
    Workload,
)
from runtime.source.update import Update
from runtime.tables.layout import FrontendKey
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from tests.tables.tables_model import TCP, mapped, workload
from tests.tables.test_tables_waypoints import BOTH, BY_NAME, INSTANCES, WP, World, http

POD = "10.244.0.1"
SERVED = (ServicePort(service_port=80, target_port=8080), ServicePort(service_port=3306))
BACKEND = replace(
    workload("w", POD, "fd01::1"), services={"ns/a": SERVED}, waypoint=BY_NAME, network=""
)


def frontends(world: World) -> set[tuple[bytes, int]]:
    keys = map(FrontendKey.unpack, world.maps.tables["frontends"])
    return {(key.address, int.from_bytes(key.port, "big")) for key in keys}


def test_what_is_addressed_to_a_workload_goes_through_its_waypoint_and_to_a_service_does_not() -> (
    None
):
    world = World()
    world.apply(WP, *INSTANCES, BACKEND, http("a", "10.96.0.1"))
    assert world.goes_to(POD, 8080) == (True, BOTH)
    assert world.goes_to("fd01::1", 8080) == (True, set())  # the waypoint has no such address
    assert world.goes_to("10.96.0.1", 80) == (False, {(POD, 8080)})
    assert (mapped(POD), 3306) not in frontends(world)
    assert world.bypassing() == {"w": [3306]}
    assert world.tables.problems == ()


@pytest.mark.parametrize("backwards", [False, True])
def test_in_any_order_and_through_every_change(*, backwards: bool) -> None:
    world = World()
    told: list[Service | Workload] = [WP, *INSTANCES, http("a", "10.96.0.1"), BACKEND]
    for one in told[::-1] if backwards else told:
        world.apply(one)
    assert world.goes_to(POD, 8080) == (True, BOTH)
    tcp = replace(http("a", "10.96.0.1"), ports=(ServicePort(service_port=80, target_port=8080),))
    world.apply(tcp)
    assert (mapped(POD), 8080) not in frontends(world)
    assert world.bypassing() == {"w": [3306, 8080]}
    said = replace(SERVED[0], app_protocol=AppProtocol.GRPC)
    world.apply(replace(BACKEND, services={"ns/a": (said,)}))
    assert world.goes_to(POD, 8080) == (True, BOTH)
    world.apply(removed=("ns/a",))
    assert world.goes_to(POD, 8080) == (True, BOTH)  # the workload itself told the protocol
    world.apply(BACKEND)
    assert (mapped(POD), 8080) not in frontends(world)
    world.apply(http("a", "10.96.0.1"))
    assert world.goes_to(POD, 8080) == (True, BOTH)
    world.apply(replace(BACKEND, waypoint=None))
    assert (mapped(POD), 8080) not in frontends(world)
    world.apply(BACKEND)
    world.apply(removed=("w", "ns/a", "ns/wp", "wp1", "wp2"))
    assert world.maps.tables == {"frontends": {}, "clusters": {}, "slots": {}, "source_tlvs": {}}


def test_without_an_instance_it_is_refused_not_let_past() -> None:
    world = World()
    world.apply(WP, BACKEND, http("a", "10.96.0.1"))
    assert world.goes_to(POD, 8080) == (True, set())


def test_the_nodes_own_address_is_not_the_workloads_alone() -> None:
    world = World()
    world.apply(WP, *INSTANCES, http("a", "10.96.0.1"))
    world.apply(replace(BACKEND, network_mode=NetworkMode.HOST_NETWORK))
    assert (mapped(POD), 8080) not in frontends(world)
    (problem,) = world.tables.problems
    assert (problem.resource, "its node's own" in problem.reason) == ("w", True)
    world.apply(BACKEND)
    assert world.tables.problems == ()


def test_an_address_of_another_network_means_another_here() -> None:
    world = World()
    world.tables.relocate(Place(node="n1", network="net1"))
    world.apply(WP, *INSTANCES, BACKEND)
    assert (mapped(POD), 8080) not in frontends(world)


def test_a_service_that_has_the_address_comes_first() -> None:
    world = World()
    same = replace(http("z", POD), ports=(ServicePort(service_port=8080),), canonical=False)
    world.apply(WP, *INSTANCES, http("a", "10.96.0.1"), BACKEND, same)
    assert world.goes_to(POD, 8080)[0] is False
    assert [problem.resource for problem in world.tables.problems] == ["w"]
    world.apply(removed=("ns/z",))
    assert world.goes_to(POD, 8080) == (True, BOTH)


def test_a_waypoint_that_does_not_fit_is_not_gone_past_and_takes_its_room_when_there_is_some() -> (
    None
):
    world = World()
    world.tables = ServiceTables(limits={"frontends": 99, "clusters": 1, "slots": 9})
    said = replace(SERVED[0], app_protocol=AppProtocol.HTTP11)
    other = replace(http("b", "10.96.0.2"), ports=(ServicePort(service_port=80),))
    world.apply(other)
    own = replace(BACKEND, addresses=BACKEND.addresses[:1], services={"ns/none": (said,)})
    ops = world.tables.apply(Update(workloads=(own,)))
    assert {op.table for op in ops} == {"frontends"}  # which lead to a cluster that is not there
    world.maps.tables["frontends"].update({op.key: op.value for op in ops if op.value})
    world.apply(removed=("ns/b",))
    assert world.goes_to(POD, 8080) == (True, set())


def test_a_restart_keeps_them() -> None:
    world = World()
    services, workloads = (WP, http("a", "10.96.0.1")), (*INSTANCES, BACKEND)
    world.apply(*services, *workloads)
    heir = ServiceTables(existing=world.maps.contents(), place=Place(node="n1"))
    assert heir.apply(Update(services=services, workloads=workloads, complete=True)) == []


def test_one_of_many_changes_costs_its_own_frontends() -> None:
    world = World()
    many = [
        replace(BACKEND, uid=f"w{n}", addresses=(ip_address(f"10.244.1.{n}"),)) for n in range(200)
    ]
    world.apply(WP, *INSTANCES, http("a", "10.96.0.1"), *many)
    ops = world.apply(replace(many[7], waypoint=None))
    assert [(op.table, op.value) for op in ops] == [("frontends", None)]
    heavier = Waypoint(destination=NamespacedHostname("ns", "wp"), port=15008)
    assert len(world.apply(replace(many[7], waypoint=heavier))) == 1
    key = FrontendKey(mapped("10.244.1.7"), (8080).to_bytes(2, "big"), TCP).pack()
    assert key in world.maps.tables["frontends"]
