# SPDX-License-Identifier: Apache-2.0
"""Waypoints in the tables: who goes through one, by name and by address, and what changes cost."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.control.view import View
from runtime.model.mesh import (
    AppProtocol,
    NamespacedHostname,
    NetworkAddress,
    NetworkMode,
    Service,
    ServicePort,
    Waypoint,
    Workload,
)
from runtime.source.update import Update
from runtime.tables.endpoints import MAX_WEIGHT
from runtime.tables.identities import NAMELESS, pack_tlvs
from runtime.tables.layout import Frontend, FrontendKey, SourceKey
from runtime.tables.ops import Op
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from runtime.tables.shares import shares
from tests.tables.tables_model import TCP, Maps, mapped, service, workload

BY_NAME = Waypoint(destination=NamespacedHostname("ns", "wp"), port=15008)
BY_ADDRESS = Waypoint(destination=NetworkAddress(ip_address("10.96.0.99")), port=15008)
WP = service("wp", "10.96.0.99", ports=(15008,))
BACKEND = workload("w", "10.244.0.1")
INSTANCES = tuple(
    replace(
        workload(f"wp{n}", f"10.244.9.{n}", serves=()),
        services={"ns/wp": (ServicePort(service_port=15008, target_port=15008),)},
    )
    for n in (1, 2)
)


def http(name: str, address: str, *, through: Waypoint | None = None) -> Service:
    ports = (
        ServicePort(service_port=80, target_port=8080, app_protocol=AppProtocol.HTTP11),
        ServicePort(service_port=3306, target_port=3306, app_protocol=AppProtocol.TCP),
    )
    made = replace(service(name, address), ports=ports)
    return replace(made, waypoints=(through,) if through else ())


class World:
    def __init__(self, place: Place = Place(node="n1")) -> None:  # noqa: B008 - it is frozen
        self.maps = Maps()
        self.maps.tables["source_tlvs"] = {}
        self.tables = ServiceTables(place=place)

    def apply(self, *resources: Service | Workload, removed: tuple[str, ...] = ()) -> list[Op]:
        ops = self.tables.apply(
            Update(
                services=tuple(one for one in resources if isinstance(one, Service)),
                workloads=tuple(one for one in resources if isinstance(one, Workload)),
                removed_services=removed,
                removed_workloads=removed,
            )
        )
        self.maps.run(ops)
        self.maps.check_weights()
        return ops

    def bypassing(self) -> dict[str, list[int]]:
        """As the status tells it of what the tables hold."""
        services, workloads = dict(self.tables.services), dict(self.tables.workloads)
        return View(services=services, workloads=workloads).bypassing()

    def goes_to(self, address: str, port: int) -> tuple[bool, set[tuple[str, int]]]:
        """Whether through a waypoint, and where to."""
        key = FrontendKey(mapped(address), port.to_bytes(2, "big"), TCP)
        flags = Frontend.unpack(self.maps.tables["frontends"][key.pack()]).flags
        found = self.maps.view()[mapped(address), port, TCP]
        places = {(str(ip_address(host[12:])), number) for host, number, _ in found}
        return bool(flags), places


BOTH = {("10.244.9.1", 15008), ("10.244.9.2", 15008)}
DIRECT = (False, {("10.244.0.1", 8080)})


def test_a_waypoint_by_name_takes_http_and_leaves_the_rest() -> None:
    world = World()
    world.apply(WP, *INSTANCES, BACKEND, http("a", "10.96.0.1", through=BY_NAME))
    assert world.goes_to("10.96.0.1", 80) == (True, BOTH)
    assert world.goes_to("10.96.0.1", 3306)[0] is False
    assert world.bypassing() == {"ns/a": [3306]}
    assert world.goes_to("10.96.0.99", 15008)[0] is False


def test_a_waypoint_by_address_is_the_service_that_has_it() -> None:
    orders: list[tuple[Service | Workload, ...]] = [(WP, *INSTANCES), (*INSTANCES, WP)]
    for order in orders:
        world = World()
        world.apply(http("a", "10.96.0.1", through=BY_ADDRESS), BACKEND)
        # Nobody is known to have the address: it is taken as it is.
        assert world.goes_to("10.96.0.1", 80) == (True, {("10.96.0.99", 15008)})
        for one in order:
            world.apply(one)
        assert world.goes_to("10.96.0.1", 80) == (True, BOTH)
        world.apply(removed=("ns/wp",))
        assert world.goes_to("10.96.0.1", 80) == (True, {("10.96.0.99", 15008)})


def test_an_address_that_a_service_gives_away_is_the_next_ones() -> None:
    """Both claim it for a moment, whoever is told of first (found by the fuzzer)."""
    world = World()
    mine = replace(WP, addresses=(NetworkAddress(ip_address("10.96.0.98")),))
    other = replace(WP, name="old", hostname="old")
    world.apply(http("a", "10.96.0.1", through=BY_ADDRESS), BACKEND, mine, other, *INSTANCES)
    assert world.goes_to("10.96.0.1", 80) == (True, set())  # of the old one, which has no instances
    world.apply(WP, replace(other, addresses=mine.addresses))
    assert world.goes_to("10.96.0.1", 80) == (True, BOTH)


def test_the_order_of_arrival_does_not_matter() -> None:
    world = World()
    world.apply(http("a", "10.96.0.1", through=BY_NAME), BACKEND)
    assert world.goes_to("10.96.0.1", 80) == (True, set())  # refused, not let past the waypoint
    world.apply(INSTANCES[0])
    assert world.goes_to("10.96.0.1", 80) == (True, {("10.244.9.1", 15008)})
    world.apply(WP, INSTANCES[1])
    assert world.goes_to("10.96.0.1", 80) == (True, BOTH)


def test_an_instance_less_is_one_slot_for_any_number_of_services() -> None:
    world = World()
    users = [http(f"s{n}", f"10.96.1.{n}", through=BY_NAME) for n in range(100)]
    world.apply(WP, *INSTANCES, *users)
    ops = world.apply(replace(INSTANCES[0], healthy=False))
    # The waypoint's own port, and its cluster as a waypoint.
    assert sum(op.table == "clusters" for op in ops) == 2
    assert not any(op.table == "frontends" for op in ops)
    assert world.goes_to("10.96.1.50", 80) == (True, {("10.244.9.2", 15008)})


def test_without_its_waypoint_a_service_goes_direct_again() -> None:
    world = World()
    world.apply(WP, *INSTANCES, BACKEND, http("a", "10.96.0.1", through=BY_NAME))
    world.apply(http("a", "10.96.0.1"))
    assert world.goes_to("10.96.0.1", 80) == DIRECT
    assert world.bypassing() == {}
    world.apply(removed=("ns/wp", "ns/a", "w", "wp1", "wp2"))
    assert world.maps.tables == {"frontends": {}, "clusters": {}, "slots": {}, "source_tlvs": {}}


def test_a_restart_keeps_waypoints() -> None:
    world = World()
    user = http("a", "10.96.0.1", through=BY_ADDRESS)
    resources: tuple[Service | Workload, ...] = (WP, *INSTANCES, BACKEND, user)
    world.apply(*resources)
    heir = ServiceTables(existing=world.maps.contents(), place=Place(node="n1"))
    whole = Update(
        services=tuple(one for one in resources if isinstance(one, Service)),
        workloads=tuple(one for one in resources if isinstance(one, Workload)),
        complete=True,
    )
    assert heir.apply(whole) == []


def test_waypoints_of_services_that_do_not_fit_are_not_gone_past() -> None:
    tables = ServiceTables(limits={"frontends": 9, "clusters": 2, "slots": 9})
    ops = tables.apply(Update(services=(http("a", "10.96.0.1", through=BY_NAME),)))
    (value,) = [op.value for op in ops if op.table == "frontends" and op.key[16:18] == b"\x00\x50"]
    assert value is not None
    assert Frontend.unpack(value).flags == 1
    assert Frontend.unpack(value).cluster not in {
        int.from_bytes(op.key, "little") for op in ops if op.table == "clusters"
    }


def test_an_instance_that_names_a_port_for_headers_is_reached_there() -> None:
    world = World()
    tunnel = replace(INSTANCES[0], proxy_port=15088)
    world.apply(WP, tunnel, INSTANCES[1], http("a", "10.96.0.1", through=BY_NAME))
    wanted = {("10.244.9.1", 15088), ("10.244.9.2", 15008)}
    assert world.goes_to("10.96.0.1", 80) == (True, wanted)
    assert world.goes_to("10.96.0.99", 15008) == (False, BOTH)  # who asks for the waypoint itself
    light = replace(BY_NAME, destination=NamespacedHostname("ns", "none"), weight=1)
    world.apply(replace(http("a", "10.96.0.1"), waypoints=(BY_NAME, light)))
    assert world.goes_to("10.96.0.1", 80) == (True, wanted)


ISTIOS = Place(node="n1", waypoint_ports=((15008, 15019),))


def test_istios_own_waypoint_is_reached_beside_its_port_for_hbone() -> None:
    """By name, by address, and where nobody is known to have the address."""
    world = World(ISTIOS)
    by_address = http("b", "10.96.0.2", through=BY_ADDRESS)
    world.apply(by_address)
    assert world.goes_to("10.96.0.2", 80) == (True, {("10.96.0.99", 15019)})
    world.apply(WP, *INSTANCES, BACKEND, http("a", "10.96.0.1", through=BY_NAME))
    for address in ("10.96.0.1", "10.96.0.2"):
        assert world.goes_to(address, 80) == (True, {(host, 15019) for host, _ in BOTH})
    assert world.goes_to("10.96.0.99", 15008) == (False, BOTH)  # who asks for the waypoint itself


def test_other_ports_of_waypoints_are_left_as_they_are_named() -> None:
    world = World(ISTIOS)
    tunnel = replace(INSTANCES[0], proxy_port=15008)  # it says that this one takes headers
    served = ServicePort(service_port=15008, target_port=15088)
    elsewhere = replace(INSTANCES[1], services={"ns/wp": (served,)})
    world.apply(WP, tunnel, elsewhere, http("a", "10.96.0.1", through=BY_NAME))
    wanted = {("10.244.9.1", 15008), ("10.244.9.2", 15088)}
    assert world.goes_to("10.96.0.1", 80) == (True, wanted)


def test_another_port_for_waypoints_is_a_change_of_endpoints_alone() -> None:
    world = World()
    user = http("a", "10.96.0.1", through=BY_NAME)
    world.apply(WP, *INSTANCES, BACKEND, user)
    heir = ServiceTables(existing=world.maps.contents(), place=ISTIOS)
    services, workloads = (WP, user), (*INSTANCES, BACKEND)
    ops = heir.apply(Update(services=services, workloads=workloads, complete=True))
    assert {op.table for op in ops} == {"slots"}
    world.maps.run(ops)
    assert world.goes_to("10.96.0.1", 80) == (True, {(host, 15019) for host, _ in BOTH})


# Several waypoints that share by weight.

LIGHT = Waypoint(destination=NamespacedHostname("ns", "other"), port=15009, weight=10)
HEAVY = replace(BY_NAME, weight=90)
OTHER = service("other", ports=(15009,))
SHARED = replace(http("a", "10.96.0.1"), waypoints=(LIGHT, HEAVY))


def instance(name: str, host: str, *, of: str, port: int, **extra: Any) -> Workload:
    served = {f"ns/{of}": (ServicePort(service_port=port, target_port=port),)}
    return replace(workload(name, host, serves=()), services=served, **extra)


def percents(world: World, address: str = "10.96.0.1") -> dict[str, float]:
    found = world.maps.view()[mapped(address), 80, TCP]
    total = sum(weight for _, _, weight in found.elements())
    return {
        str(ip_address(host[12:])): round(100 * weight / total, 3)
        for host, _, weight in found.elements()
    }


def test_weighted_waypoints_share_by_weight_and_their_instances_among_themselves() -> None:
    world = World()
    others = [instance(f"o{n}", f"10.244.8.{n}", of="other", port=15009) for n in (1, 2, 3)]
    world.apply(WP, OTHER, *INSTANCES, *others, SHARED)
    assert world.tables.problems == ()
    third = round(10 / 3, 3)
    assert percents(world) == {
        "10.244.9.1": 45,
        "10.244.9.2": 45,
        "10.244.8.1": third,
        "10.244.8.2": third,
        "10.244.8.3": third,
    }
    assert world.goes_to("10.96.0.1", 80)[0]
    world.apply(replace(others[0], capacity=2))
    assert percents(world)["10.244.8.1"] == 5
    world.apply(removed=("wp1",))
    assert (percents(world)["10.244.9.2"], percents(world)["10.244.8.2"]) == (90, 2.5)


def test_an_instance_of_two_weighted_waypoints_goes() -> None:
    """It is one of both until it is none of either (found by the fuzzer)."""
    world = World()
    other = instance("o1", "10.244.8.1", of="other", port=15009)
    both = replace(INSTANCES[0], services={**INSTANCES[0].services, **other.services})
    world.apply(WP, OTHER, both, *INSTANCES[1:], other, SHARED)
    world.apply(removed=(both.uid,))
    assert percents(world) == {"10.244.9.2": 90, "10.244.8.1": 10}


def test_two_ports_of_one_service_as_weighted_waypoints() -> None:
    world = World()
    second = replace(HEAVY, port=15009, weight=1)
    world.apply(WP, *INSTANCES, replace(SHARED, waypoints=(HEAVY, second)))
    assert len(world.goes_to("10.96.0.1", 80)[1]) == 4  # two instances on two ports
    world.apply(removed=(SHARED.key,))
    world.apply(removed=("ns/wp", "wp1", "wp2"))
    assert world.tables.used == {"frontends": 0, "clusters": 0, "slots": 0}


def test_a_waypoint_without_weight_gets_nothing_and_one_without_instances_leaves_its_share() -> (
    None
):
    world = World()
    nothing = replace(LIGHT, weight=0)
    other = instance("o", "10.244.8.1", of="other", port=15009)
    world.apply(WP, OTHER, *INSTANCES, other, replace(SHARED, waypoints=(HEAVY, nothing)))
    assert percents(world) == {"10.244.9.1": 50, "10.244.9.2": 50}
    world.apply(SHARED)
    assert percents(world)["10.244.8.1"] == 10
    world.apply(removed=("wp1", "wp2"))
    assert percents(world) == {"10.244.8.1": 100}  # another waypoint, never past them
    world.apply(removed=("o",))
    assert world.goes_to("10.96.0.1", 80) == (True, set())


def test_weighted_waypoints_in_any_order_by_address_too_and_over_a_restart() -> None:
    by_address = replace(BY_ADDRESS, weight=90)
    other = instance("o", "10.244.8.1", of="other", port=15009)
    user = replace(SHARED, waypoints=(by_address, LIGHT))
    resources: list[Service | Workload] = [WP, OTHER, *INSTANCES, other, user]
    for order in (resources, resources[::-1]):
        world = World()
        for one in order:
            world.apply(one)
        assert percents(world) == {"10.244.9.1": 45, "10.244.9.2": 45, "10.244.8.1": 10}
        world.apply(removed=("ns/wp",))
        assert percents(world) == {"10.96.0.99": 90, "10.244.8.1": 10}
        world.apply(WP)
    heir = ServiceTables(existing=world.maps.contents(), place=Place(node="n1"))
    services = tuple(one for one in resources if isinstance(one, Service))
    workloads = tuple(one for one in resources if isinstance(one, Workload))
    assert heir.apply(Update(services=services, workloads=workloads, complete=True)) == []
    world.apply(removed=("ns/wp", "ns/a", "ns/other", "wp1", "wp2", "o"))
    assert world.maps.tables == {"frontends": {}, "clusters": {}, "slots": {}, "source_tlvs": {}}


@given(
    st.lists(
        st.tuples(
            st.integers(min_value=0, max_value=100),
            st.lists(st.integers(min_value=1, max_value=5000), max_size=20),
        ),
        max_size=4,
    )
)
def test_shares_are_right_to_a_hundredth_of_a_percent_of_the_largest(
    groups: list[tuple[int, list[int]]],
) -> None:
    found = shares(groups)
    total = sum(map(sum, found))
    wanted = sum(weight for weight, members in groups if members)
    assert max([0, *(weight for group in found for weight in group)]) <= MAX_WEIGHT
    for (weight, members), got in zip(groups, found, strict=True):
        assert [bool(one) for one in got] == [bool(weight)] * len(members)
        for capacity, one in zip(members, got, strict=True):
            exact = weight * capacity / sum(members) / wanted if weight else 0
            assert abs(one / total - exact if total else 0) <= 1.1 * len(members) * 4 / MAX_WEIGHT


def test_small_shares_are_exact() -> None:
    assert shares([(90, [1]), (10, [1])]) == [[9], [1]]
    assert shares([(1, [1, 1]), (1, [1, 1, 1])]) == [[3, 3], [2, 2, 2]]
    assert shares([(0, [1]), (5, [])]) == [[0], []]


def test_identities_of_this_nodes_workloads() -> None:
    world = World()
    here = replace(workload("w1", "10.244.0.1", "fd01::1"), node="n1", service_account="cart")
    there = replace(workload("w2", "10.244.0.2"), node="n2", service_account="cart")
    world.apply(here, there)
    found = world.maps.tables["source_tlvs"]
    assert {SourceKey.unpack(key).address for key in found} == {
        mapped("10.244.0.1"),
        mapped("fd01::1"),
    }
    text = b"spiffe://cluster.local/ns/ns/sa/cart"
    (block,) = set(found.values())
    assert len(block) == 256
    assert block.startswith(b"\xd0\x00" + bytes([len(text)]) + text + b"\x04")
    world.apply(replace(here, node="n2"))
    assert found == {}


def test_an_identity_that_is_too_long_is_told_to_nobody_and_is_somebodys() -> None:
    world = World()
    here = replace(workload("w1", "10.244.0.1"), node="n1", service_account="x" * 250)
    world.apply(here)
    assert [*world.maps.tables["source_tlvs"].values()] == [NAMELESS]
    assert len(NAMELESS) == 3 + int.from_bytes(NAMELESS[1:3], "big") == 256
    assert ["too long" in one.reason for one in world.tables.problems] == [True]


def test_a_block_is_well_formed_whatever_the_length() -> None:
    for size in range(300):
        block = pack_tlvs("x" * size)
        assert (block is None) == (size > 250)
        at = 0
        while block and at < len(block):
            at += 3 + int.from_bytes(block[at + 1 : at + 3], "big")
        assert at == (256 if block else 0)


CART = replace(
    workload("cart", "10.244.0.5", serves=()), node="n1", namespace="shop", service_account="cart"
)


def test_an_address_that_passes_from_one_workload_to_another_keeps_its_identity() -> None:
    """The new one is told of before the old one is gone (found by the fuzzer)."""
    world = World()
    world.apply(CART)
    told = dict(world.maps.tables["source_tlvs"])
    assert len(told) == 1
    world.apply(replace(CART, uid="new"))
    world.apply(removed=("cart",))
    assert world.maps.tables["source_tlvs"] == told


def test_nobody_is_vouched_for_at_an_address_that_two_claim() -> None:
    world = World()
    world.apply(CART)
    told = dict(world.maps.tables["source_tlvs"])
    world.apply(replace(CART, uid="other", service_account="mallory"))
    assert not world.maps.tables["source_tlvs"]
    assert {one.resource for one in world.tables.problems} == {"cart", "other"}
    world.apply(removed=("other",))
    assert world.maps.tables["source_tlvs"] == told
    assert world.tables.problems == ()


def test_workloads_in_the_nodes_own_network_have_no_identity_of_theirs() -> None:
    """They share the node's address, so it tells of none of them."""
    world = World()
    world.apply(replace(CART, network_mode=NetworkMode.HOST_NETWORK))
    assert not world.maps.tables["source_tlvs"]
    assert world.tables.problems == ()
