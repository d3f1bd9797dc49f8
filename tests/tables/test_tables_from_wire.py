# SPDX-License-Identifier: Apache-2.0
"""From bytes on the wire through the decoder into the tables: whatever comes, the maps stay whole.

Responses are recorded ones with bytes changed, or made from small pools of names, addresses and
numbers, so that what they tell of meets, conflicts and is half wrong. After every response the maps
must hold together, be reached by steps none of which is half an update, and be what a process that
had never seen anything else would make of the last picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.mesh import NetworkMode, Workload
from runtime.source.istiod.changes import Changes, Known
from runtime.source.istiod.kinds import AddressKind, AuthorizationKind
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.proto.security_pb2 import Authorization
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.subscription import Subscription
from runtime.source.update import Update
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from tests.source.istiod.test_istiod_fuzz import (
    ADDRESSES,
    EDITS,
    POLICIES,
    _run,
    edited,
    fields_of,
)
from tests.tables import test_policy_tables
from tests.tables.tables_model import Maps
from tests.tables.test_tables_property import World, allowed

PLACE = Place(node="here", cluster="c1")
NODES = ("here", "there", "")
NAMES = ("a", "b", "wp")
HOSTS = tuple(f"{name}.shop.svc" for name in NAMES)
V4 = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "0.0.0.0", "224.0.0.1")
PACKED = (
    *(ip_address(one).packed for one in (*V4, "fd00::1", "fd00::2", "::ffff:10.0.0.1", "::")),
    b"", b"\x0a", bytes(15),
)  # fmt: skip


def rarely(bad: st.SearchStrategy[Any], good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Wrong often enough to matter, and seldom enough for whole resources to be accepted."""
    return st.integers(0, 39).flatmap(lambda number: good if number else bad)


addresses = rarely(
    st.sampled_from(PACKED), st.sampled_from([*PACKED[:3], *PACKED[:3], *PACKED[5:8]])
)
ports = rarely(
    st.sampled_from([0, 65536, 2**32 - 1]), st.sampled_from([53, 80, 80, 80, 443, 65535])
)
enums = st.sampled_from([0, 0, 1, 1, 2, 3, 4, 5, 7, -1])
port_lists = st.lists(
    st.fixed_dictionaries({"service_port": ports, "target_port": ports, "app_protocol": enums}),
    min_size=1,
    max_size=3,
)
network_addresses = st.fixed_dictionaries(
    {"address": addresses, "network": st.sampled_from(["", "", "net2"])},
)
networks = rarely(
    st.fixed_dictionaries({"address": addresses, "length": st.sampled_from([8, 32, 128])}),
    network_addresses,
)
waypoints = st.one_of(
    st.fixed_dictionaries({
        "hostname": st.fixed_dictionaries({
            "namespace": st.just("shop"), "hostname": st.sampled_from([*HOSTS, "wp.shop.svc", "nowhere"])}),
        "hbone_mtls_port": ports,
    }),
    st.fixed_dictionaries({"address": network_addresses, "hbone_mtls_port": ports}),
)  # fmt: skip
services = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "namespace": st.sampled_from(["shop", "shop", "bank"]),
        "hostname": st.sampled_from(HOSTS),
        "addresses": st.lists(networks, min_size=1, max_size=3),
        "ports": port_lists,
        "canonical": st.booleans(),
    },
    optional={
        "waypoint": waypoints,
        "weighted_waypoints": st.lists(
            st.fixed_dictionaries({"destination": waypoints, "weight": st.integers(0, 3)}),
            max_size=3,
        ),
        "load_balancing": st.fixed_dictionaries({
            "routing_preference": st.lists(st.integers(0, 9), max_size=3),
            "mode": enums, "health_policy": enums}),
    },
)  # fmt: skip
workloads = st.fixed_dictionaries(
    {
        "uid": st.sampled_from(["w1", "w2", "w3", "w4", "w5"]),
        "namespace": st.sampled_from(["shop", "bank"]),
        "addresses": st.lists(addresses, min_size=1, max_size=2),
        "node": st.sampled_from(NODES),
        "network": st.sampled_from(["", "", "net2"]),
        "service_account": st.sampled_from(["", "web", "db"]),
        "services": st.dictionaries(
            st.sampled_from([f"shop/{host}" for host in HOSTS]),
            st.fixed_dictionaries({"ports": port_lists}),
            min_size=1,
            max_size=3,
        ),
        "status": st.sampled_from([0, 0, 0, 1, 7]),
        "authorization_policies": st.lists(st.sampled_from(["shop/p", "bank/p"]), max_size=2),
    },
    optional={
        "capacity": st.fixed_dictionaries({"value": st.sampled_from([0, 1, 2, 3, 65536, 2**32 - 1])}),
        "waypoint": waypoints,
        "network_mode": enums,
        "locality": st.fixed_dictionaries({"region": st.sampled_from(["r1", ""])}),
    },
)  # fmt: skip


def _named_address(fields: dict[str, Any], *, is_service: bool) -> tuple[str, bytes]:
    message = Address(service=fields) if is_service else Address(workload=fields)
    one = message.service
    name = f"{one.namespace}/{one.hostname}" if is_service else message.workload.uid
    return name, message.SerializeToString()


def _named_policy(fields: dict[str, Any], namespace: str) -> tuple[str, bytes]:
    message = Authorization(**{**fields, "name": "p", "namespace": namespace})
    return f"{namespace}/p", message.SerializeToString()


Resource = tuple[str, bytes | None]  # name; payload, or None for a removal


def _changed(
    recorded: Sequence[tuple[str, bytes]], made: st.SearchStrategy[tuple[str, bytes]]
) -> st.SearchStrategy[list[Resource]]:
    """The resources of a response."""
    old = st.sampled_from(recorded)
    broken = st.tuples(old, EDITS).map(lambda both: (both[0][0], edited(both[0][1], both[1])))
    gone = st.one_of(old, made).map(lambda one: (one[0], None))
    return st.lists(st.one_of(made, made, made, made, old, broken, gone), max_size=8)


mesh = st.one_of(
    services.map(lambda one: _named_address(one, is_service=True)),
    workloads.map(lambda one: _named_address(one, is_service=False)),
)
policies = st.tuples(
    fields_of(Authorization.DESCRIPTOR), st.sampled_from(["shop", "bank", "istio-system"])
).map(lambda both: _named_policy(*both))
responses = st.tuples(_changed(ADDRESSES, mesh), _changed(POLICIES, policies))


@dataclass(slots=True)
class Wire:
    """Both subscriptions, and what a consumer of them has."""

    mesh: Subscription = field(default_factory=lambda: Subscription(AddressKind()))
    policies: Subscription = field(default_factory=lambda: Subscription(AuthorizationKind()))
    known: Known = field(default_factory=Known)
    number: int = 0

    def receive(self, resources: tuple[list[Resource], list[Resource]]) -> Update:
        self.number += 1
        changes = Changes()
        for subscription, several in zip((self.mesh, self.policies), resources, strict=True):
            response = DeltaDiscoveryResponse(type_url=subscription.kind.type_url)
            for name, payload in several:
                if payload is None:
                    response.removed_resources.append(name)
                    continue
                resource = response.resources.add(name=name, version=f"{self.number}")
                resource.resource.type_url = subscription.kind.type_url
                resource.resource.value = payload
            changes.merge(_run(subscription.apply(response)).changes)
        changes.forget_unknown(self.known)
        return changes.to_update(complete=self.number == 1)


def empty_maps() -> Maps:
    maps = Maps()
    maps.tables["source_tlvs"] = {}
    return maps


def copy_of(maps: Maps) -> Maps:
    made = Maps(maps.contents())
    made.tables.setdefault("source_tlvs", {})
    return made


def carry_out(maps: Maps, tables: ServiceTables, update: Update) -> None:
    before, after = copy_of(maps), copy_of(maps)
    ops = tables.apply(update)
    after.run(ops)
    maps.run(ops, allowed=allowed(before, after))
    maps.check_weights()


@settings(deadline=None, max_examples=120)
@given(st.lists(responses, min_size=1, max_size=6))
def test_service_tables_stay_whole_and_forget_how_they_came_about(sequence):
    wire, maps, tables, world = Wire(), empty_maps(), ServiceTables(place=PLACE), World()
    for resources in sequence:
        update = wire.receive(resources)
        world.take(update)
        carry_out(maps, tables, update)
        assert tables.used == {name: len(maps.tables[name]) for name in tables.used}
        assert tables.apply(Update()) == []
        fresh, anew = empty_maps(), ServiceTables(place=PLACE)
        fresh.run(anew.apply(world.whole()))
        assert maps.tables == fresh_slots(maps, fresh)
        assert {each.resource for each in tables.problems} <= world.services.keys() | world.workloads.keys()  # fmt: skip
    carry_out(maps, tables, Update(complete=True))
    assert not any(maps.tables.values())
    assert tables.problems == ()


def fresh_slots(maps: Maps, fresh: Maps) -> dict[str, dict[bytes, bytes]]:
    """What is to be the same: all but the order of endpoints within a cluster."""
    assert maps.view() == fresh.view()
    assert maps.tables["slots"].keys() == fresh.tables["slots"].keys()
    return {**fresh.tables, "slots": maps.tables["slots"]}


class PolicyWorld(test_policy_tables.World):
    """Beside the policy tables, the reference; who does not say where he runs may run here."""

    def is_local(self, one: Workload) -> bool:
        return one.network_mode is not NetworkMode.HOST_NETWORK and one.node in ("here", "")


@settings(deadline=None, max_examples=60)
@given(st.lists(responses, min_size=1, max_size=4))
def test_policy_tables_decide_as_the_reference_whatever_was_sent(sequence):
    wire, world = Wire(), PolicyWorld(place=PLACE)
    sources = [ip_address(one) for one in (*V4[:3], "fd00::1", "192.0.2.1")]
    for resources in sequence:
        update = wire.receive(resources)
        # Of two in the node's own network nobody knows who speaks: the reference has no such case.
        if any(one.network_mode is NetworkMode.HOST_NETWORK for one in update.workloads):
            return
        world.take(
            complete=update.complete,
            workloads=update.workloads,
            removed_workloads=update.removed_workloads,
            policies=update.policies,
            removed_policies=update.removed_policies,
        )
        world.check(sources, sources)
    world.take(complete=True)
    assert not +world.maps.sizes()
