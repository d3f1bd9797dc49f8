# SPDX-License-Identifier: Apache-2.0
"""Any sequence of updates: the tables come to what a naive model says, and are never half way."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.mesh import (
    BalancingMode,
    HealthPolicy,
    LoadBalancing,
    Locality,
    NetworkAddress,
    Protocol,
    Scope,
    Service,
    ServicePort,
    Workload,
)
from runtime.source.update import Update
from runtime.tables.ops import Contents
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from tests.tables.tables_model import Maps, naive

NAMES = ("a", "b", "c")
PLACE = Place(node="n1", locality=Locality("r1", "z1", "s1"), cluster="c1")

ports = st.builds(
    ServicePort,
    service_port=st.sampled_from([53, 80, 443]),
    target_port=st.sampled_from([0, 8080]),
    protocol=st.sampled_from(Protocol),
)
balancing = st.builds(
    LoadBalancing,
    routing_preference=st.sampled_from([(), (Scope.REGION, Scope.ZONE), (Scope.NODE,)]),
    mode=st.sampled_from(BalancingMode),
    health_policy=st.sampled_from(HealthPolicy),
)
unique_ports = st.lists(
    ports, max_size=3, unique_by=lambda port: (port.service_port, port.protocol)
).map(tuple)


def services(name: str) -> st.SearchStrategy[Service]:
    return st.builds(
        Service,
        name=st.just(name),
        namespace=st.just("ns"),
        hostname=st.just(name),
        addresses=st.lists(
            st.sampled_from(["10.96.0.1", "10.96.0.2", "fd00::1"]), max_size=2, unique=True
        ).map(lambda found: tuple(NetworkAddress(ip_address(one)) for one in found)),
        ports=unique_ports,
        load_balancing=balancing,
        canonical=st.booleans(),
    )


def workloads(uid: str) -> st.SearchStrategy[Workload]:
    return st.builds(
        Workload,
        uid=st.just(uid),
        name=st.just(uid),
        namespace=st.just("ns"),
        addresses=st.lists(
            st.sampled_from(["10.244.0.1", "10.244.0.2", "fd01::1"]), max_size=2, unique=True
        ).map(lambda found: tuple(ip_address(one) for one in found)),
        services=st.dictionaries(st.sampled_from([f"ns/{name}" for name in NAMES]), unique_ports),
        capacity=st.sampled_from([0, 1, 1, 2, 3, 5, 100]),
        healthy=st.booleans(),
        node=st.sampled_from(["n1", "n2"]),
        locality=st.sampled_from([Locality("r1", "z1"), Locality("r1", "z2"), Locality("r2")]),
    )


UIDS = tuple(f"w{index}" for index in range(6))
some_services = st.lists(st.sampled_from(NAMES), unique=True).flatmap(
    lambda names: st.tuples(*(services(name) for name in names))
)
some_workloads = st.lists(st.sampled_from(UIDS), unique=True).flatmap(
    lambda uids: st.tuples(*(workloads(uid) for uid in uids))
)
updates = st.builds(
    Update,
    services=some_services,
    workloads=some_workloads,
    removed_services=st.lists(st.sampled_from([f"ns/{name}" for name in NAMES])).map(tuple),
    removed_workloads=st.lists(st.sampled_from(UIDS)).map(tuple),
    complete=st.integers(0, 5).map(lambda number: number == 0),
)


class World:
    """What a source has said so far."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.workloads: dict[str, Workload] = {}

    def take(self, update: Update) -> None:
        if update.complete:
            self.services, self.workloads = {}, {}
        for key in update.removed_services:
            self.services.pop(key, None)
        for uid in update.removed_workloads:
            self.workloads.pop(uid, None)
        self.services.update({one.key: one for one in update.services})
        self.workloads.update({one.uid: one for one in update.workloads})

    def whole(self) -> Update:
        return Update(
            services=tuple(self.services.values()),
            workloads=tuple(self.workloads.values()),
            complete=True,
        )


def allowed(before: Maps, after: Maps) -> dict[int, set[bytes]]:
    """By cluster, every endpoint that is right before or after an update."""
    one, other = before.by_cluster(), after.by_cluster()
    return {
        number: one.get(number, set()) | other.get(number, set())
        for number in one.keys() | other.keys()
    }


def run(maps: Maps, tables: ServiceTables, update: Update) -> None:
    before, after = Maps(maps.contents()), Maps(maps.contents())
    ops = tables.apply(update)
    after.run(ops)
    maps.run(ops, allowed=allowed(before, after))
    maps.check_weights()


@settings(max_examples=80, deadline=None)
@given(st.lists(updates, max_size=6))
def test_every_sequence_of_updates_comes_to_what_the_naive_model_says(
    sequence: Sequence[Update],
) -> None:
    maps, tables, world = Maps(), ServiceTables(place=PLACE), World()
    for update in sequence:
        world.take(update)
        run(maps, tables, update)
        assert maps.view() == naive(world.services, world.workloads, PLACE)
        assert tables.apply(update) == [] or update.removed_services or update.removed_workloads
        assert tables.used == {name: len(table) for name, table in maps.tables.items()}


@settings(max_examples=50, deadline=None)
@given(st.lists(updates, min_size=1, max_size=3), updates)
def test_a_restart_writes_the_difference_alone(sequence: Sequence[Update], last: Update) -> None:
    maps, tables, world = Maps(), ServiceTables(place=PLACE), World()
    for update in sequence:
        world.take(update)
        maps.run(tables.apply(update))
    again = ServiceTables(place=PLACE, existing=maps.contents())
    assert again.apply(world.whole()) == []
    other = ServiceTables(place=PLACE, existing=maps.contents())
    world.take(last)
    run(maps, other, world.whole())
    assert maps.view() == naive(world.services, world.workloads, PLACE)


@settings(max_examples=50, deadline=None)
@given(updates, updates, st.data())
def test_a_process_killed_amid_an_update_leaves_what_the_next_one_mends(
    first: Update, second: Update, data: st.DataObject
) -> None:
    maps, tables, world = Maps(), ServiceTables(place=PLACE), World()
    world.take(first)
    maps.run(tables.apply(first))
    world.take(second)
    ops = tables.apply(second)
    maps.run(ops[: data.draw(st.integers(0, len(ops)))])
    heir = ServiceTables(place=PLACE, existing=maps.contents())
    run(maps, heir, world.whole())
    assert maps.view() == naive(world.services, world.workloads, PLACE)
    assert heir.used == {name: len(table) for name, table in maps.tables.items()}


@settings(max_examples=60, deadline=None)
@given(st.lists(updates, max_size=5), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_what_does_not_fit_is_reported_and_placed_when_there_is_room(
    sequence: Sequence[Update], frontends: int, clusters: int, slots: int
) -> None:
    limits = {"frontends": frontends, "clusters": clusters, "slots": slots}
    maps, world = Maps(), World()
    tables = ServiceTables(place=PLACE, limits=limits)
    for update in sequence:
        world.take(update)
        for op in tables.apply(update):
            maps.run([op])
            assert all(len(maps.tables[name]) <= limits[name] for name in limits)
        maps.check_weights()
        wanted, found = naive(world.services, world.workloads, PLACE), maps.view()
        if found != wanted:
            assert tables.problems
        for place, endpoints in found.items():
            assert endpoints <= wanted[place]
    run(maps, tables, Update(complete=True))
    assert maps.tables == {"frontends": {}, "clusters": {}, "slots": {}}
    assert tables.problems == ()
    assert Contents() == maps.contents()
