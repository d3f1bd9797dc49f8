# SPDX-License-Identifier: Apache-2.0
"""The tables by example: what a change costs, who is preferred, and how errors name their resource."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from runtime.model.mesh import (
    BalancingMode,
    HealthPolicy,
    LoadBalancing,
    Locality,
    NetworkAddress,
    Protocol,
    Scope,
    ServicePort,
    Workload,
)
from runtime.source.update import Update
from runtime.tables.frontends import describe
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from tests.tables.tables_model import TCP, Maps, mapped, service, workload

VIP = (mapped("10.96.0.1"), 80, TCP)
HERE = Place(node="n1", cluster="c1", locality=Locality("r1", "z1", "s1"))


def many(count: int, name: str = "a") -> tuple[Workload, ...]:
    return tuple(
        workload(f"{name}{n}", str(ip_address(0x0AF40000 + n)), serves=(name,))
        for n in range(count)
    )


def built(*workloads: Workload, place: Place | None = None, **extra: object) -> Maps:
    maps = Maps()
    tables = ServiceTables(place=place)
    made = service("a", "10.96.0.1", **extra)  # type: ignore[arg-type]
    maps.run(tables.apply(Update(services=(made,), workloads=workloads, complete=True)))
    return maps


def hosts(maps: Maps) -> set[bytes]:
    return {address for address, _, _ in maps.view()[VIP]}


# What a change costs.


@pytest.fixture
def large() -> ServiceTables:
    tables = ServiceTables()
    tables.apply(Update(services=(service("a", "10.96.0.1"),), workloads=many(20_000)))
    return tables


def test_one_endpoint_more_is_two_writes(large: ServiceTables) -> None:
    ops = large.apply(Update(workloads=(workload("new", "10.245.0.1"),)))
    assert [(op.table, op.value is None) for op in ops] == [("slots", False), ("clusters", False)]


def test_one_endpoint_less_is_two_writes_and_a_removal(large: ServiceTables) -> None:
    ops = large.apply(Update(removed_workloads=("a77",)))
    tables = [(op.table, op.value is None) for op in ops]
    assert tables == [("slots", False), ("clusters", False), ("slots", True)]


def test_an_endpoint_that_moves_is_one_write(large: ServiceTables) -> None:
    ops = large.apply(Update(workloads=(workload("a77", "10.245.0.1"),)))
    assert [op.table for op in ops] == ["slots"]


def test_weights_make_a_change_no_dearer(large: ServiceTables) -> None:
    heavy = replace(many(78)[77], capacity=1000)
    ops = large.apply(Update(workloads=(heavy,)))
    assert Counter(op.table for op in ops) == {"slots": 3, "clusters": 1}


def test_nothing_new_is_no_operation(large: ServiceTables) -> None:
    whole = Update(services=(service("a", "10.96.0.1"),), workloads=many(20_000), complete=True)
    assert large.apply(whole) == []


def test_no_small_limits() -> None:
    ports = range(1, 101)
    wide = service("a", "10.96.0.1", ports=ports)
    workloads = tuple(
        workload(f"w{n}", str(ip_address(0x0AF40000 + n)), ports=ports) for n in range(1000)
    )
    tables = ServiceTables()
    maps = Maps()
    maps.run(tables.apply(Update(services=(wide,), workloads=workloads, complete=True)))
    assert tables.problems == ()
    assert {sum(endpoints.values()) for endpoints in maps.view().values()} == {1000}
    assert len(maps.view()) == 100


# Order of arrival, moves.


def test_a_service_may_come_before_or_after_its_workloads() -> None:
    one, other = Maps(), Maps()
    tables = ServiceTables()
    one.run(tables.apply(Update(services=(service("a", "10.96.0.1"),))))
    one.run(tables.apply(Update(workloads=many(5))))
    tables = ServiceTables()
    other.run(tables.apply(Update(workloads=many(5))))
    other.run(tables.apply(Update(services=(service("a", "10.96.0.1"),))))
    assert one.view() == other.view()
    assert sum(one.view()[VIP].values()) == 5


def test_a_workload_may_move_between_services() -> None:
    maps, tables = Maps(), ServiceTables()
    both = (service("a", "10.96.0.1"), service("b", "10.96.0.2"))
    maps.run(tables.apply(Update(services=both, workloads=(workload("w", "10.244.0.1"),))))
    maps.run(tables.apply(Update(workloads=(workload("w", "10.244.0.1", serves=("b",)),))))
    assert maps.view() == {
        VIP: Counter(),
        (mapped("10.96.0.2"), 80, TCP): Counter({(mapped("10.244.0.1"), 8080, 1): 1}),
    }


def test_a_workloads_own_target_port_goes_before_the_services() -> None:
    served = {"ns/a": (ServicePort(service_port=80, target_port=9999),)}
    maps = built(replace(workload("w", "10.244.0.1"), services=served))
    assert list(maps.view()[VIP]) == [(mapped("10.244.0.1"), 9999, 1)]


def test_tcp_and_udp_on_one_port_are_two_things() -> None:
    ports = tuple(
        ServicePort(service_port=53, target_port=target, protocol=protocol)
        for protocol, target in ((Protocol.TCP, 1053), (Protocol.UDP, 2053))
    )
    maps, tables = Maps(), ServiceTables()
    dns = replace(service("a", "10.96.0.1"), ports=ports)
    serves = replace(workload("w", "10.244.0.1"), services={"ns/a": ports})
    maps.run(tables.apply(Update(services=(dns,), workloads=(serves,), complete=True)))
    found = {place[2]: list(endpoints) for place, endpoints in maps.view().items()}
    assert found == {
        6: [(mapped("10.244.0.1"), 1053, 1)],
        17: [(mapped("10.244.0.1"), 2053, 1)],
    }


# Locality, health, networks.


def placed(uid: str, host: str, region: str, zone: str, **extra: str) -> Workload:
    return replace(workload(uid, host), locality=Locality(region, zone), **extra)  # type: ignore[arg-type]


NEAR = placed("near", "10.244.0.1", "r1", "z1", node="n1")
ZONE = placed("zone", "10.244.0.2", "r1", "z1", node="n2")
REGION = placed("region", "10.244.0.3", "r1", "z9", node="n3")
FAR = placed("far", "10.244.0.4", "r9", "z1", node="n4")
BY_PLACE = (Scope.REGION, Scope.ZONE, Scope.NODE)


@pytest.mark.parametrize(
    ("workloads", "chosen"),
    [
        ((NEAR, ZONE, REGION, FAR), {"10.244.0.1"}),
        ((ZONE, REGION, FAR), {"10.244.0.2"}),
        ((REGION, FAR), {"10.244.0.3"}),
        ((FAR,), {"10.244.0.4"}),  # the same zone of another region is not near
    ],
)
def test_failover_goes_to_the_nearest_there_are(
    workloads: tuple[Workload, ...], chosen: set[str]
) -> None:
    balancing = LoadBalancing(routing_preference=BY_PLACE, mode=BalancingMode.FAILOVER)
    maps = built(*workloads, place=HERE, load_balancing=balancing)
    assert hosts(maps) == {mapped(host) for host in chosen}


def test_failover_moves_when_the_nearest_fail_and_back() -> None:
    maps, tables = Maps(), ServiceTables(place=HERE)
    balancing = LoadBalancing(routing_preference=BY_PLACE, mode=BalancingMode.FAILOVER)
    made = service("a", "10.96.0.1", load_balancing=balancing)
    maps.run(tables.apply(Update(services=(made,), workloads=(NEAR, REGION, FAR))))
    assert hosts(maps) == {mapped("10.244.0.1")}
    maps.run(tables.apply(Update(workloads=(replace(NEAR, healthy=False),))))
    assert hosts(maps) == {mapped("10.244.0.3")}
    maps.run(tables.apply(Update(workloads=(NEAR,))))
    assert hosts(maps) == {mapped("10.244.0.1")}


def test_strict_never_leaves_its_scope() -> None:
    strict = LoadBalancing(routing_preference=(Scope.NODE,), mode=BalancingMode.STRICT)
    assert hosts(built(NEAR, ZONE, place=HERE, load_balancing=strict)) == {mapped("10.244.0.1")}
    assert hosts(built(ZONE, FAR, place=HERE, load_balancing=strict)) == set()


def test_passthrough_leaves_the_address_alone() -> None:
    through = LoadBalancing(mode=BalancingMode.PASSTHROUGH)
    assert built(NEAR, load_balancing=through).view() == {}


def test_health_policy() -> None:
    sick = replace(NEAR, healthy=False)
    assert hosts(built(sick, ZONE)) == {mapped("10.244.0.2")}
    everyone = LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL)
    assert len(hosts(built(sick, ZONE, load_balancing=everyone))) == 2


def test_addresses_of_another_network_are_not_reached_directly() -> None:
    maps, tables = Maps(), ServiceTables(place=Place(network="net1"))
    addresses = tuple(
        NetworkAddress(ip_address("10.96.0.1"), network) for network in ("net1", "net2")
    )
    made = replace(service("a"), addresses=addresses)
    inside = workload("in", "10.244.0.1", network="net1")
    outside = workload("out", "10.244.0.1", network="net2", capacity=5)
    maps.run(tables.apply(Update(services=(made,), workloads=(inside, outside))))
    assert maps.view() == {VIP: Counter({(mapped("10.244.0.1"), 8080, 1): 1})}


# Errors name their resource; the rest works.


def reasons(tables: ServiceTables) -> dict[str, str]:
    return {problem.resource: problem.reason for problem in tables.problems}


def test_two_services_with_one_address_the_second_takes_over() -> None:
    maps, tables = Maps(), ServiceTables()
    both = (service("a", "10.96.0.1"), service("b", "10.96.0.1"))
    workloads = (workload("wa", "10.244.0.1"), workload("wb", "10.244.0.2", serves=("b",)))
    maps.run(tables.apply(Update(services=both[::-1], workloads=workloads)))
    assert hosts(maps) == {mapped("10.244.0.1")}
    assert reasons(tables) == {"ns/b": "10.96.0.1:80/TCP belongs to ns/a"}
    maps.run(tables.apply(Update(removed_services=("ns/a",))))
    assert hosts(maps) == {mapped("10.244.0.2")}
    assert reasons(tables) == {}


def test_bad_ports_and_addresses_cost_only_themselves() -> None:
    maps, tables = Maps(), ServiceTables()
    odd = service("a", "10.96.0.1", "224.0.0.1", ports=(80, 0, 70_000))
    workloads = (
        workload("good", "10.244.0.1"),
        workload("nowhere", "0.0.0.0"),
        replace(
            workload("port", "10.244.0.2"),
            services={"ns/a": (ServicePort(service_port=80, target_port=99_999),)},
        ),
        workload("heavy", "10.244.0.3", capacity=1_000_000),
    )
    maps.run(tables.apply(Update(services=(odd,), workloads=workloads)))
    assert hosts(maps) == {mapped("10.244.0.1"), mapped("10.244.0.3")}
    found = reasons(tables)
    assert found.keys() == {"ns/a", "nowhere", "port", "heavy"}
    assert "0.0.0.0" in found["nowhere"]
    assert "99999" in found["port"]
    assert "65535" in found["heavy"]
    maps.run(tables.apply(Update(removed_services=("ns/a",), removed_workloads=tuple(found))))
    assert reasons(tables) == {}


def test_the_address_of_a_service_that_does_not_fit_is_nobody_elses() -> None:
    tables, maps = ServiceTables(limits={"frontends": 9, "clusters": 1, "slots": 9}), Maps()
    rival = replace(service("a", "10.96.0.1"), canonical=False)
    pod = workload("w", "10.244.0.1", serves=("a",))
    maps.run(tables.apply(Update(services=(rival,), workloads=(pod,))))
    assert len(maps.tables["frontends"]) == 1
    maps.run(tables.apply(Update(services=(replace(service("b", "10.96.0.1"), canonical=True),))))
    assert maps.tables["frontends"] == {}
    assert {problem.resource for problem in tables.problems} == {"ns/a", "ns/b"}


def test_what_does_not_fit_is_named_and_placed_later() -> None:
    maps = Maps()
    tables = ServiceTables(limits={"frontends": 9, "clusters": 9, "slots": 3})
    both = (service("a", "10.96.0.1"), service("b", "10.96.0.2"))
    maps.run(tables.apply(Update(services=both, workloads=many(2))))
    maps.run(tables.apply(Update(workloads=many(2, "b"))))
    assert reasons(tables) == {"b1": "endpoint of ns/b port 80 does not fit: the table holds 3"}
    maps.run(tables.apply(Update(removed_workloads=("a0",))))
    assert reasons(tables) == {}
    assert {place[0]: sum(found.values()) for place, found in maps.view().items()} == {
        mapped("10.96.0.1"): 1,
        mapped("10.96.0.2"): 2,
    }


@pytest.mark.parametrize(
    ("address", "text"), [("10.96.0.1", "10.96.0.1:80/TCP"), ("fd00::1", "[fd00::1]:80/TCP")]
)
def test_a_frontend_is_written_as_people_write_it(address: str, text: str) -> None:
    (key,) = built_key(address)
    assert describe(key) == text


def built_key(address: str) -> list[bytes]:
    tables = ServiceTables()
    ops = tables.apply(Update(services=(service("a", address),)))
    return [op.key for op in ops if op.table == "frontends"]


def test_what_is_new_does_not_wait_behind_what_has_vanished() -> None:
    """A restarted process finds 1,000 services in the kernel, of which one is left, and a new one."""
    many = tuple(service(f"s{n}", f"10.97.{n // 200}.{1 + n % 200}") for n in range(1000))
    one = workload("w", "10.244.0.1", serves=[f"s{n}" for n in range(1000)])
    maps, before = Maps(), ServiceTables()
    maps.run(before.apply(Update(services=many, workloads=(one,), complete=True)))
    again = ServiceTables(existing=maps.contents())
    new = service("new", "10.96.0.9")
    ops = again.apply(Update(services=(many[0], new), workloads=(one,), complete=True))
    written = [op.value is not None for op in ops]
    assert sum(written) == 2  # its cluster, which is empty, and its frontend
    assert written.index(False) == sum(written)
    maps.run(ops)
    assert len(maps.tables["frontends"]) == 2
