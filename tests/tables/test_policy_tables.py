# SPDX-License-Identifier: Apache-2.0
"""Compiled policies, walked as the kernel walks them, say what the reference says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.layout import TARGETS, render
from runtime.model.mesh import IPAddress, NetworkMode, Workload
from runtime.model.policy import (
    Action,
    Connection,
    Group,
    Match,
    Policy,
    PolicyScope,
    StringKind,
    StringMatch,
    decide,
    identity_of,
)
from runtime.source.update import Update
from runtime.tables import policies as policies_module
from runtime.tables import policy_layout, policy_set, policy_terms
from runtime.tables.describe import describe
from runtime.tables.place import Place
from runtime.tables.policies import PolicyTables
from tests.tables import policy_twin as twin

HERE = Place(node="here")
TARGET = ip_address("10.244.0.9")


def pod(uid: str, *addresses: str, namespace: str = "shop", **extra: Any) -> Workload:
    fields = {"service_account": "web", "node": "there"} | extra
    found = tuple(map(ip_address, addresses))
    return Workload(uid=uid, name=uid, namespace=namespace, addresses=found, **fields)


def server(**extra: Any) -> Workload:
    return pod("server", str(TARGET), **{"node": "here"} | extra)


def policy(*groups: Group, name: str = "p", **fields: Any) -> Policy:
    given = {"scope": PolicyScope.GLOBAL} | fields
    return Policy(name=name, namespace="istio-system", groups=groups, **given)


def allow(name: str = "p", **conditions: Any) -> Policy:
    return policy(((Match(**conditions),),), name=name)


def deny(name: str = "d", **conditions: Any) -> Policy:
    return replace(allow(name, **conditions), action=Action.DENY)


class World:
    """Tables and maps that follow the same updates, and the reference beside them."""

    def __init__(self, *, place: Place = HERE) -> None:
        self.tables = PolicyTables(place=place)
        self.maps = twin.Maps()
        self.workloads: dict[str, Workload] = {}
        self.policies: dict[str, Policy] = {}

    def take(self, *, complete: bool = False, **changes: Any) -> None:
        update = Update(complete=complete, **changes)
        if complete:
            self.workloads, self.policies = {}, {}
        for uid in update.removed_workloads:
            self.workloads.pop(uid, None)
        for key in update.removed_policies:
            self.policies.pop(key, None)
        self.workloads |= {one.uid: one for one in update.workloads}
        self.policies |= {one.key: one for one in update.policies}
        self.maps.run(self.tables.apply(update))

    def at(self, address: IPAddress) -> list[Workload]:
        return [one for one in self.workloads.values() if address in one.addresses]

    def is_local(self, one: Workload) -> bool:
        return one.node == "here"

    def applying(self, destination: IPAddress) -> list[list[Policy]]:
        """For each workload of this node that is there."""
        local = [one for one in self.at(destination) if self.is_local(one)]
        every = [one for _, one in sorted(self.policies.items())]
        return [[one for one in every if one.applies_to(each)] for each in local]

    def expected(self, source: IPAddress, destination: IPAddress, port: int) -> bool:
        """What the reference says; of someone whom several claim to be, what all may do."""
        return all(
            decide(
                policies,
                Connection(
                    source=source, destination=destination, destination_port=port, identity=who
                ),
            ).allowed
            for policies in self.applying(destination)
            for who in {identity_of(one) for one in self.at(source)} or {None}
        )

    def check(self, sources: Iterable[IPAddress], targets: Iterable[IPAddress]) -> None:
        for source, target, port in product(sources, targets, (*twin.PORTS, 9)):
            if source != target:
                found = self.maps.judge(source, target, port).passes
                assert found == self.expected(source, target, port), (source, target, port)


CLIENTS = (
    pod("a", "10.0.0.1"),
    pod("b", "10.0.0.200", "fd00::1", namespace="bank", service_account="db"),
    pod("c", "10.9.9.9", namespace="shopping", trust_domain="td2"),
    pod("d", "2001:db8::1", service_account=""),
)
TARGETS_HERE = tuple(map(ip_address, ("10.244.0.9", "10.0.0.1", "fd00::9")))
named = st.lists(st.integers(0, 9), max_size=6, unique=True).flatmap(
    lambda numbers: st.tuples(*(twin.policies(f"p{number}") for number in numbers))
)


@settings(deadline=None, max_examples=120)
@given(named)
def test_the_kernels_verdict_is_the_references(found: tuple[Policy, ...]) -> None:
    world = World()
    keys = tuple(sorted({one.key for one in found})[:3])
    local = (
        pod("s1", "10.244.0.9", node="here", authorization_policies=keys),
        pod("s2", "10.0.0.1", "fd00::9", node="here", namespace="bank"),
    )
    world.take(workloads=(*CLIENTS[1:], *local), policies=found)
    world.check(twin.ADDRESSES, TARGETS_HERE)


@settings(deadline=None, max_examples=60)
@given(named)
def test_of_several_at_an_address_each_must_let_in(found: tuple[Policy, ...]) -> None:
    world = World()
    keys = tuple(sorted({one.key for one in found}))
    here = (
        server(namespace="bank", authorization_policies=keys[:3]),
        replace(server(), uid="other", authorization_policies=keys[2:]),
    )
    world.take(workloads=(*CLIENTS, *here), policies=found)
    world.check(twin.ADDRESSES, [TARGET])


def test_who_may_come_to_one_of_two_at_an_address_may_not_come_to_the_other() -> None:
    world = World()
    mine = replace(allow("mine", namespaces=exact("shop")), scope=PolicyScope.WORKLOAD_SELECTOR)
    theirs = replace(allow("theirs", namespaces=exact("bank")), scope=PolicyScope.WORKLOAD_SELECTOR)
    one = server(authorization_policies=(mine.key,))
    other = replace(one, uid="other", authorization_policies=(theirs.key,))
    world.take(workloads=(*CLIENTS, one, other), policies=(mine, theirs))
    a, b = (each.addresses[0] for each in CLIENTS[:2])
    assert not world.maps.judge(a, TARGET, 80).passes
    assert not world.maps.judge(b, TARGET, 80).passes
    world.take(removed_workloads=("other",))
    assert world.maps.judge(a, TARGET, 80).passes
    assert not world.maps.judge(b, TARGET, 80).passes


def test_more_than_fits_of_two_at_an_address_lets_nobody_in() -> None:
    world = World()
    every = [
        replace(allow(f"{side}{n}", namespaces=exact(f"{side}{n}")), scope=PolicyScope.WORKLOAD_SELECTOR)
        for side in "xy"
        for n in range(130)
    ]  # fmt: skip
    keys = [one.key for one in every]
    one = server(authorization_policies=tuple(keys[:130]))
    other = replace(one, uid="other", authorization_policies=tuple(keys[130:]))
    world.take(workloads=(*CLIENTS, one, other), policies=tuple(every))
    assert not world.maps.judge(CLIENTS[0].addresses[0], TARGET, 80).passes
    assert {each.resource for each in world.tables.problems} == set(keys)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_sequence_of_updates_ends_in_the_same_maps_as_one(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(1, 5))):
        chosen = data.draw(named)
        local = [
            pod(f"s{n}", f"10.244.0.{n}", node="here", namespace=data.draw(st.sampled_from(twin.NAMESPACES)))
            for n in data.draw(st.lists(st.integers(0, 3), unique=True))
        ]  # fmt: skip
        gone = data.draw(st.lists(st.sampled_from([*world.policies, "x/y"]), unique=True))
        left = data.draw(st.lists(st.sampled_from([*world.workloads, "z"]), unique=True))
        moved = data.draw(st.lists(st.sampled_from(CLIENTS), unique_by=lambda one: one.uid))
        world.take(
            policies=chosen,
            workloads=(*moved, *local),
            removed_policies=tuple(key for key in gone if key not in {p.key for p in chosen}),
            removed_workloads=tuple(
                uid for uid in left if uid not in {w.uid for w in (*moved, *local)}
            ),
            complete=data.draw(st.booleans()),
        )
        world.check(twin.ADDRESSES[:3], [one.addresses[0] for one in local])
        fresh = World()
        fresh.take(
            policies=tuple(world.policies.values()), workloads=tuple(world.workloads.values())
        )
        assert world.maps.tables == fresh.maps.tables
    world.take(complete=True)
    assert not +world.maps.sizes()


@settings(deadline=None, max_examples=60)
@given(named, named)
def test_a_change_is_never_half_visible(
    before: tuple[Policy, ...], after: tuple[Policy, ...]
) -> None:
    """After every single operation a connection meets the old policies or the new ones."""
    world = World()
    workloads = (*CLIENTS, server())
    world.take(workloads=workloads, policies=before)
    cases = list(product(twin.ADDRESSES, (80, 9)))
    old = {case: world.maps.judge(case[0], TARGET, case[1]) for case in cases}
    gone = tuple({one.key for one in before} - {one.key for one in after})
    ops = world.tables.apply(Update(policies=after, removed_policies=gone))
    seen = []
    for op in ops:
        world.maps.step(op)
        seen.append({case: world.maps.judge(case[0], TARGET, case[1]) for case in cases})
    new = seen[-1] if seen else old
    turned = next((i for i, one in enumerate(seen) if one != old), len(seen))
    assert all(one == old for one in seen[:turned])
    assert all(one == new for one in seen[turned:])


@settings(deadline=None, max_examples=60)
@given(named, st.data())
def test_what_an_earlier_process_left_is_adopted(
    found: tuple[Policy, ...], data: st.DataObject
) -> None:
    world = World()
    world.take(workloads=(*CLIENTS, server()), policies=found)
    left = {
        table: {key: value for key, value in content.items() if data.draw(st.booleans())}
        for table, content in world.maps.tables.items()
    }
    stale = policy_layout.Guard(5, 1, 0).pack()
    left["guards"][policy_layout.AddressKey(twin.packed(ip_address("192.0.2.77"))).pack()] = stale
    maps = twin.Maps()
    maps.tables = {table: dict(content) for table, content in left.items()}
    adopting = PolicyTables(place=HERE, existing=left)
    whole = Update(policies=found, workloads=(*CLIENTS, server()), complete=True)
    maps.run(adopting.apply(whole))
    assert maps.tables == world.maps.tables
    assert not adopting.resync(maps.tables)
    maps.tables["guards"].clear()
    maps.run(adopting.resync({table: dict(rows) for table, rows in maps.tables.items()}))
    assert maps.tables == world.maps.tables


@pytest.mark.parametrize("first", twin.BLOCKS)
@pytest.mark.parametrize("second", twin.BLOCKS)
def test_blocks_within_blocks(first: str, second: str) -> None:
    one, other = ip_network(first), ip_network(second)
    world = World()
    found = (allow("in", source_ips=(one,), not_source_ips=(other,)), deny(source_ips=(other,)))
    world.take(workloads=(server(),), policies=found)
    world.check(twin.ADDRESSES, [TARGET])
    elsewhere = allow("d", source_ips=(other,), destination_ports=(9,))
    world.take(policies=(allow("in", source_ips=(one,)), elsewhere))
    world.check(twin.ADDRESSES, [TARGET])


def test_without_policies_nothing_is_written() -> None:
    world = World()
    world.take(workloads=(*CLIENTS, server()))
    assert not +world.maps.sizes()
    assert not world.tables.is_needed


def test_only_workloads_of_this_node_are_guarded() -> None:
    world = World()
    world.take(workloads=(*CLIENTS, server(node="there")), policies=(deny(),))
    assert not +world.maps.sizes()
    world.take(workloads=(server(node=""),))
    assert world.tables.guarded_by("istio-system/d") == [TARGET]


def test_one_workload_of_thousands_costs_what_it_changes() -> None:
    world = World()
    many = tuple(pod(f"w{n}", str(ip_address("10.1.0.0") + n)) for n in range(2000))
    world.take(workloads=(*many, server()), policies=(allow(namespaces=exact("shop")),))
    ops = world.tables.apply(Update(workloads=(pod("new", "10.7.7.7"),)))
    assert [op.table for op in ops] == ["identities"]
    ops = world.tables.apply(Update(removed_workloads=("new",)))
    assert [(op.table, op.value) for op in ops] == [("identities", None)]


def exact(text: str) -> tuple[StringMatch, ...]:
    return (StringMatch(StringKind.EXACT, text),)


def test_hundreds_of_policies_and_blocks() -> None:
    found = [
        deny(f"deny{n:04}", source_ips=(ip_network(f"10.{n >> 8}.{n & 255}.0/24"),))
        for n in range(1200)
    ]
    found += [
        allow(f"allow{n:04}", namespaces=exact(f"ns{n}"), destination_ports=(1000 + n,))
        for n in range(600)
    ]
    world = World()
    clients = tuple(
        pod(f"c{n}", f"172.16.{n // 250}.{n % 250}", namespace=f"ns{n}") for n in range(600)
    )
    world.take(workloads=(*clients, server()), policies=tuple(found))
    for n in (0, 63, 64, 599):
        source = clients[n].addresses[0]
        assert world.maps.judge(source, TARGET, 1000 + n).passes
        assert not world.maps.judge(source, TARGET, 1000 + (n + 1) % 600).passes
    for n in (0, 1023, 1024, 1199):
        refused = world.maps.judge(ip_address(f"10.{n >> 8}.{n & 255}.7"), TARGET, 1000)
        assert not refused.passes
        assert refused.counted == (n + 1,)
    assert not world.tables.problems


def test_a_dry_run_policy_is_counted_once_and_decides_nothing() -> None:
    both = (Match(namespaces=exact("shop")), Match(destination_ports=(80,)))
    dry = policy((both,), name="dry", dry_run=True, action=Action.DENY)
    other = replace(dry, name="other")
    world = World()
    world.take(workloads=(*CLIENTS, server()), policies=(dry, other))
    verdict = world.maps.judge(ip_address("10.0.0.1"), TARGET, 80)
    assert verdict.passes
    assert verdict.counted == (1, 2)


def huge(name: str, action: Action) -> Policy:
    rule = tuple(Match(destination_ports=(port,)) for port in range(1, 66))
    second = tuple(Match(not_destination_ports=(port,)) for port in range(1, 66))
    return policy((rule, second), name=name, action=action)


def test_a_deny_policy_that_does_not_fit_refuses_everyone_and_is_named() -> None:
    world = World()
    world.take(workloads=(*CLIENTS, server()), policies=(huge("big", Action.DENY), allow("ok")))
    assert [one.resource for one in world.tables.problems] == ["istio-system/big"]
    assert "4225" in world.tables.problems[0].reason
    assert not world.maps.judge(ip_address("10.0.0.1"), TARGET, 80).passes


def test_an_allow_policy_that_does_not_fit_allows_nobody() -> None:
    world = World()
    other = allow("ok", namespaces=exact("bank"))
    world.take(workloads=(*CLIENTS, server()), policies=(huge("big", Action.ALLOW), other))
    assert not world.maps.judge(ip_address("10.0.0.1"), TARGET, 80).passes
    assert world.maps.judge(ip_address("10.0.0.200"), TARGET, 80).passes
    world.take(removed_policies=("istio-system/ok",))
    assert not world.maps.judge(ip_address("10.0.0.200"), TARGET, 80).passes


def test_more_terms_than_a_destination_has_room_for() -> None:
    ports = tuple(
        (tuple(Match(destination_ports=(port,)) for port in range(1, 4001)),) for _ in "x"
    )
    found = tuple(policy(*ports, name=f"p{n}", action=Action.DENY) for n in range(5))
    world = World()
    world.take(workloads=(*CLIENTS, server()), policies=found)
    assert [one.resource for one in world.tables.problems] == ["istio-system/p4"]
    assert not world.maps.judge(ip_address("10.0.0.1"), TARGET, 5000).passes


def test_the_node_itself_is_exempt() -> None:
    tables, maps = PolicyTables(place=HERE, exempt=[ip_address("10.244.0.1")]), twin.Maps()
    maps.run(
        tables.apply(
            Update(workloads=(server(),), policies=(deny(not_source_ips=(ip_network("::/0"),)),))
        )
    )
    assert maps.judge(ip_address("10.244.0.1"), TARGET, 80).passes
    assert not maps.judge(ip_address("10.244.0.2"), TARGET, 80).passes


def test_the_same_address_in_another_network_is_somebody_else() -> None:
    world = World(place=Place(node="here", network="n1"))
    local = server(network="n1")
    world.take(
        workloads=(pod("far", "10.0.0.1", network="n2"), local),
        policies=(allow(namespaces=exact("shop")),),
    )
    assert not world.maps.judge(ip_address("10.0.0.1"), TARGET, 80).passes
    world.take(workloads=(pod("near", "10.0.0.1", network="n1"),))
    assert world.maps.judge(ip_address("10.0.0.1"), TARGET, 80).passes


def test_the_nodes_own_network_is_neither_guarded_nor_known() -> None:
    world = World()
    host = NetworkMode.HOST_NETWORK
    world.take(
        workloads=(pod("h", "192.0.2.9", network_mode=host, node="here"), server()),
        policies=(allow(namespaces=exact("shop")),),
    )
    assert not world.maps.judge(ip_address("192.0.2.9"), TARGET, 80).passes
    assert world.maps.judge(ip_address("10.0.0.1"), ip_address("192.0.2.9"), 80).passes


def test_a_contested_source_may_do_what_all_who_claim_it_may() -> None:
    world = World()
    claimed = (pod("x", "10.0.0.1"), pod("y", "10.0.0.1", namespace="bank"))
    world.take(workloads=(*claimed, server()), policies=(allow(namespaces=exact("shop")),))
    assert not world.maps.judge(ip_address("10.0.0.1"), TARGET, 80).passes
    world.take(removed_workloads=("y",))
    assert world.maps.judge(ip_address("10.0.0.1"), TARGET, 80).passes
    world.take(workloads=claimed, policies=(deny("p", namespaces=exact("bank")),))
    assert not world.maps.judge(ip_address("10.0.0.1"), TARGET, 80).passes


def test_the_layout_is_the_objects(objects: Path) -> None:
    found = describe((objects / "authorize").glob("*.bpf.o"))
    assert TARGETS["authorize"].read_text(encoding="utf-8") == render(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROW_WORDS", policy_set.ROW_WORDS),
        ("ROWS", policy_set.ROWS),
        ("BLOCK_FIXED_BITS", policy_set.BLOCK_FIXED_BITS),
        ("NO_TERM_ALLOWS", policy_set.NO_TERM_ALLOWS),
        ("ALL_REFUSED", policy_set.ALL_REFUSED),
        ("EXEMPT", policies_module.EXEMPT),
        *((f"{kind.name}", int(kind)) for kind in policy_set.Kind),
        *((f"{flag.name}", int(flag)) for flag in policy_set.Flag),
        *((f"ROW_{kind.name}", int(kind)) for kind in policy_set.RowKind),
    ],
)
def test_the_numbers_are_the_headers(checkout: Path, name: str, value: int) -> None:
    header = (checkout / "bpf/include/kmesh/policy.h").read_text(encoding="utf-8")
    found = re.search(rf"^#define KMESH_{name}\s+(\S+)", header, re.MULTILINE)
    assert found
    assert int(found[1], 0) == value


def test_a_term_is_not_lost_in_the_product() -> None:
    shop, bank = Match(namespaces=exact("shop")), Match(namespaces=exact("bank"))
    port = Match(destination_ports=(80,))
    assert len(policy_terms.terms_of(policy(((shop, bank), (port,))), TARGET)) == 2
    assert policy_terms.terms_of(policy(((Match(),), (port,))), TARGET) == ()
    assert [t.matches for t in policy_terms.terms_of(policy(()), TARGET)] == [()]
