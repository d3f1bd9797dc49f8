# SPDX-License-Identifier: Apache-2.0
"""What authorization policies mean, said a second time and otherwise, and the cases people get wrong."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.model.mesh import Workload
from runtime.model.policy import (
    Action,
    Connection,
    Identity,
    Match,
    Policy,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
    decide,
    identity_of,
)

FRONTEND = Identity("cluster.local", "shop", "frontend")
OTHER = Identity("td2", "bank", "teller")


def connection(**changes) -> Connection:
    made = Connection(
        source=ip_address("10.244.0.1"),
        destination=ip_address("10.244.1.1"),
        destination_port=8080,
        identity=FRONTEND,
    )
    return replace(made, **changes)


def policy(*groups, name: str = "p", **fields) -> Policy:
    return Policy(name=name, namespace="shop", groups=groups, **fields)


def allow(**conditions) -> Policy:
    """An allow policy of one match."""
    return policy(((Match(**conditions),),))


def exact(text: str) -> tuple[StringMatch, ...]:
    return (StringMatch(StringKind.EXACT, text),)


ANY = (StringMatch(StringKind.PRESENCE),)
SAME_SOURCE = (ip_network("10.244.0.0/24"),)


@pytest.mark.parametrize(
    ("conditions", "inside", "elsewhere", "outside"),
    [
        ({"namespaces": exact("shop")}, True, False, False),
        ({"not_namespaces": exact("shop")}, False, True, True),
        ({"principals": exact("cluster.local/ns/shop/sa/frontend")}, True, False, False),
        ({"not_principals": exact("cluster.local/ns/shop/sa/frontend")}, False, True, True),
        ({"principals": ANY}, True, True, False),
        ({"not_principals": ANY}, False, False, True),
        ({"namespaces": (StringMatch(StringKind.PREFIX, "ba"),)}, False, True, False),
        ({"principals": (StringMatch(StringKind.SUFFIX, "sa/teller"),)}, False, True, False),
        ({"service_accounts": (ServiceAccountMatch("shop", "frontend"),)}, True, False, False),
        ({"not_service_accounts": (ServiceAccountMatch("shop", "frontend"),)}, False, True, True),
        ({"source_ips": SAME_SOURCE}, True, False, False),
        ({"not_source_ips": SAME_SOURCE}, False, True, True),
        ({"destination_ips": (ip_network("10.244.1.1/32"),)}, True, True, False),
        ({"not_destination_ips": (ip_network("10.244.1.1/32"),)}, False, False, True),
        ({"destination_ports": (80, 8080)}, True, True, False),
        ({"not_destination_ports": (80, 8080)}, False, False, True),
        ({"source_ips": (ip_network("::/0"),)}, False, False, True),
    ],
)
def test_each_condition(conditions, inside, elsewhere, outside):
    there = connection(identity=OTHER, source=ip_address("10.244.9.1"))
    beyond = Connection(
        source=ip_address("2001:db8::1"), destination=ip_address("fd00::1"), destination_port=1
    )
    made = allow(**conditions)
    assert [made.matches(c) for c in (connection(), there, beyond)] == [inside, elsewhere, outside]


def test_values_of_one_field_are_alternatives_and_fields_must_all_hold():
    made = allow(namespaces=exact("bank") + exact("shop"), destination_ports=(8080,))
    assert made.matches(connection())
    assert not made.matches(connection(destination_port=81))


def test_groups_rules_and_matches_nest_as_or_and_or():
    shop, bank = Match(namespaces=exact("shop")), Match(namespaces=exact("bank"))
    port, other = Match(destination_ports=(8080,)), Match(destination_ports=(9,))
    assert policy(((bank, shop), (port,))).matches(connection())
    assert not policy(((bank, shop), (other,))).matches(connection())
    assert policy(((bank,), (port,)), ((shop,), (port,))).matches(connection())
    assert not policy(((bank,), (port,)), ((shop,), (other,))).matches(connection())


def test_what_is_empty():
    assert not policy().matches(connection())
    assert policy(()).matches(connection())
    assert policy(((),)).matches(connection())
    about_http = policy(((Match(),),))
    assert not about_http.matches(connection())
    assert about_http.needs_http
    assert not policy(((),)).needs_http


def test_the_recorded_policy_about_http_denies_nothing_at_l4():
    made = policy(
        ((Match(),), (Match(not_principals=exact("cluster.local/ns/shop/sa/frontend")),)),
        action=Action.DENY,
    )
    assert decide([made], connection(identity=None)).allowed
    assert made.needs_http


def test_what_cannot_be_read_opens_no_door():
    match = Match(destination_ports=(8080,), unreadable=("field 99",))
    assert not policy(((match,),)).matches(connection())
    assert policy(((match,),), action=Action.DENY).matches(connection())
    only = Match(unreadable=("field 99",))
    assert policy(((only,),), action=Action.DENY).matches(connection())
    assert not policy(((only,),)).matches(connection())
    assert policy(((only,),)).unreadable == ("field 99",)


WORKLOAD = Workload(
    uid="u",
    name="w",
    namespace="shop",
    service_account="frontend",
    authorization_policies=("shop/p",),
)


@pytest.mark.parametrize(
    ("scope", "namespace", "name", "applies"),
    [
        (PolicyScope.GLOBAL, "istio-system", "x", True),
        (PolicyScope.NAMESPACE, "shop", "x", True),
        (PolicyScope.NAMESPACE, "bank", "x", False),
        (PolicyScope.WORKLOAD_SELECTOR, "shop", "p", True),
        (PolicyScope.WORKLOAD_SELECTOR, "shop", "x", False),
        (PolicyScope.WORKLOAD_SELECTOR, "bank", "p", False),
    ],
)
def test_scopes(scope, namespace, name, applies):
    made = Policy(name=name, namespace=namespace, scope=scope)
    assert made.applies_to(WORKLOAD) is applies


def test_identities():
    assert identity_of(WORKLOAD) == FRONTEND
    assert FRONTEND.principal == "cluster.local/ns/shop/sa/frontend"
    assert identity_of(replace(WORKLOAD, service_account="")) is None
    moved = identity_of(replace(WORKLOAD, trust_domain="td2"))
    assert moved is not None
    assert moved.trust_domain == "td2"


YES, NO = ((),), (((Match(destination_ports=(1,)),),),)


def test_deny_beats_allow_and_names_the_policy():
    verdict = decide([policy(*YES), policy(*YES, name="d", action=Action.DENY)], connection())
    assert not verdict.allowed
    assert verdict.policy == "shop/d"
    assert verdict.reason == "denied by shop/d"


def test_without_an_allow_policy_all_that_is_not_denied_is_allowed():
    assert decide([], connection()).allowed
    assert decide([policy(*NO, action=Action.DENY)], connection()).allowed


def test_with_an_allow_policy_only_what_matches_is_allowed():
    verdict = decide([policy(*NO)], connection())
    assert not verdict.allowed
    assert verdict.policy is None
    assert decide([policy(*NO), policy(*YES, name="y")], connection()).policy == "shop/y"
    assert not decide([policy()], connection()).allowed


def test_a_dry_run_decides_nothing_and_is_told():
    denying = policy(*YES, name="d", action=Action.DENY, dry_run=True)
    verdict = decide([denying, policy(*NO, name="a", dry_run=True)], connection())
    assert verdict.allowed
    assert verdict.dry_run == ("shop/d",)


# A second reading of the semantics: expand every policy into conjunctions of atoms first.

TEXTS = ("", "a", "ab", "abc", "b")
IPS = tuple(map(ip_address, ("10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "fd00:1::1")))
NETS = tuple(map(ip_network, ("10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0", "fd00::/32", "::/0")))
PORTS = (0, 80, 443)
strings = st.builds(StringMatch, st.sampled_from(StringKind), st.sampled_from(TEXTS))
accounts = st.builds(ServiceAccountMatch, st.sampled_from(TEXTS), st.sampled_from(TEXTS))


def some(values):
    return st.one_of(st.just(()), st.lists(values, max_size=2).map(tuple))


matches = st.builds(
    Match,
    namespaces=some(strings),
    not_namespaces=some(strings),
    principals=some(strings),
    not_principals=some(strings),
    service_accounts=some(accounts),
    not_service_accounts=some(accounts),
    source_ips=some(st.sampled_from(NETS)),
    not_source_ips=some(st.sampled_from(NETS)),
    destination_ips=some(st.sampled_from(NETS)),
    not_destination_ips=some(st.sampled_from(NETS)),
    destination_ports=some(st.sampled_from(PORTS)),
    not_destination_ports=some(st.sampled_from(PORTS)),
)
groups = st.lists(st.lists(matches, max_size=2).map(tuple), max_size=2).map(tuple)
policies = st.builds(
    Policy,
    name=st.sampled_from("xyz"),
    namespace=st.just("n"),
    action=st.sampled_from(Action),
    groups=st.lists(groups, max_size=2).map(tuple),
    dry_run=st.booleans(),
)
identities = st.builds(Identity, *[st.sampled_from(TEXTS[1:])] * 3)
connections = st.builds(
    Connection,
    source=st.sampled_from(IPS),
    destination=st.sampled_from(IPS),
    destination_port=st.sampled_from(PORTS),
    identity=st.one_of(st.none(), identities),
)


def text_in(pattern: StringMatch, text: str) -> bool:
    width = len(pattern.value)
    return {
        StringKind.EXACT: text == pattern.value,
        StringKind.PREFIX: text[:width] == pattern.value,
        StringKind.SUFFIX: width <= len(text) and text[len(text) - width :] == pattern.value,
        StringKind.PRESENCE: bool(text),
    }[pattern.kind]


def ip_in(net, ip) -> bool:
    bits = net.max_prefixlen - net.prefixlen
    same = net.version == ip.version
    return bool(same and int(net.network_address) >> bits == int(ip) >> bits)


def atoms(match: Match, c: Connection) -> list[bool]:
    """The truth of each field that is set."""
    who = c.identity
    namespace, principal = (who.namespace, who.principal) if who else ("", "")
    pair = (who.namespace, who.service_account) if who else None
    facts = {
        "namespaces": lambda v: text_in(v, namespace),
        "principals": lambda v: text_in(v, principal),
        "service_accounts": lambda v: (v.namespace, v.service_account) == pair,
        "source_ips": lambda v: ip_in(v, c.source),
        "destination_ips": lambda v: ip_in(v, c.destination),
        "destination_ports": lambda v: v == c.destination_port,
    }
    truths = []
    for field, fact in facts.items():
        if wanted := getattr(match, field):
            truths.append(True in [fact(v) for v in wanted])
        if unwanted := getattr(match, f"not_{field}"):
            truths.append(True not in [fact(v) for v in unwanted])
    return truths


def plainly_matches(p: Policy, c: Connection) -> bool:
    for group in p.groups:
        held = 0
        for rule in group:
            truths = [atoms(match, c) for match in rule]
            held += not rule or any(t and False not in t for t in truths)
        if held == len(group):
            return True
    return False


@given(policies, connections)
@example(policy(((Match(),),)), connection())
def test_matching_agrees_with_the_second_reading(p, c):
    assert p.matches(c) is plainly_matches(p, c)


@given(st.lists(policies, max_size=4), connections)
def test_deciding_agrees_with_the_second_reading(ps, c):
    live = [p for p in ps if not p.dry_run]
    hits = {
        action: [p for p in live if p.action is action and plainly_matches(p, c)]
        for action in Action
    }
    guarded = any(p.action is Action.ALLOW for p in live)
    verdict = decide(ps, c)
    assert verdict.allowed is (not hits[Action.DENY] and bool(hits[Action.ALLOW] or not guarded))
    assert list(verdict.dry_run) == [p.key for p in ps if p.dry_run and plainly_matches(p, c)]
    if verdict.policy is not None:
        action = Action.ALLOW if verdict.allowed else Action.DENY
        assert verdict.policy in [p.key for p in hits[action]]


@given(st.lists(policies, max_size=3), policies, connections)
def test_another_deny_never_opens_and_order_never_matters(ps, extra, c):
    deny = replace(extra, action=Action.DENY, dry_run=False)
    before, after = decide(ps, c).allowed, decide([*ps, deny], c).allowed
    assert before or not after
    assert decide(ps[::-1], c).allowed is before
