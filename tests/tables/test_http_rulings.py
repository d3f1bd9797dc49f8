# SPDX-License-Identifier: Apache-2.0
"""Rules on clients, apart from those on requests: nothing of them is lost, and they stay few."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest

from runtime.model.http import (
    AllOf,
    Anything,
    DirectResponse,
    Forward,
    HeaderMatch,
    HttpPort,
    Not,
    PathIs,
    PathKind,
    PathMatch,
    PrincipalIs,
    Rbac,
    RbacPolicy,
    Route,
    RouteMatch,
    RouteTable,
    SourceIn,
    Step,
    TextKind,
    TextMatch,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.policy import Action, Identity
from runtime.plan.client import Client
from runtime.tables.enhanced_layout import Route as Row
from runtime.tables.http_authorization import MOST_CASES, BeyondError, Decision, Sender
from runtime.tables.http_cases import split
from runtime.tables.http_clients import ByClient, Verdict, rulings
from runtime.tables.http_ports import FORWARD, GOVERNED, case_rows
from runtime.tables.http_rulings import MOST_FACTS, pack_ruling
from tests.gate.rulings import Rulings, decided

PORT = HttpPort(listener="l", address=None, port=80, table="t", steps=(Step.RBAC,))
WEB = Client(Identity("cluster.local", "web", "front"), ip_address("10.0.0.1"))
BANK = Client(Identity("cluster.local", "bank", "default"), ip_address("10.0.1.1"))
NOBODY = Client(None, ip_address("192.0.2.7"))
YES, NO = Decision(allowed=True), Decision(allowed=False)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Rulings:
    return Rulings.compile(tmp_path_factory.mktemp("rulings"))


def path(text: str, kind: TextKind = TextKind.PREFIX) -> PathIs:
    return PathIs(TextMatch(kind, text))


def named(kind: TextKind, text: str = "", **more: Any) -> PrincipalIs:
    return PrincipalIs(TextMatch(kind, text, **more))


def rules(action: Action, *asked: tuple[Any, Any]) -> Rbac:
    policies = (
        RbacPolicy(name=f"p{number}", permissions=(permission,), principals=(principal,))
        for number, (permission, principal) in enumerate(asked)
    )
    return Rbac(action=action, policies=tuple(policies))


def ask(condition: PrincipalIs | SourceIn, *, wanted: bool = True) -> ByClient:
    return ByClient((Verdict((Sender(condition, wanted),), YES), Verdict((), NO)))


@pytest.mark.parametrize(
    ("condition", "met_by"),
    [
        (named(TextKind.EXACT, WEB.principal), [WEB]),
        (named(TextKind.EXACT, WEB.principal + "x"), []),
        (named(TextKind.EXACT, WEB.principal.upper()), []),
        (named(TextKind.EXACT, WEB.principal.upper(), ignore_case=True), [WEB]),
        (named(TextKind.PREFIX, "spiffe://cluster.local/ns/b"), [BANK]),
        (named(TextKind.PREFIX, "spiffe://"), [WEB, BANK]),
        (named(TextKind.SUFFIX, "/sa/default"), [BANK]),
        (named(TextKind.CONTAINS, "/ns/web/"), [WEB]),
        (named(TextKind.PRESENT), [WEB, BANK]),
        (named(TextKind.REGEX, ".*/ns/web/.*"), [WEB]),
        (named(TextKind.REGEX, ".+"), [WEB, BANK]),
        (named(TextKind.REGEX, ".*"), [WEB, BANK]),  # and who has no identity is nobody
        (named(TextKind.REGEX, "spiffe://[^/]+/ns/(web|shop)/sa/f.{4}"), [WEB]),
        (SourceIn(ip_network("10.0.0.0/23")), [WEB, BANK]),
        (SourceIn(ip_network("10.0.0.0/24")), [WEB]),
        (SourceIn(ip_network("10.0.1.1/32")), [BANK]),
        (SourceIn(ip_network("0.0.0.0/0")), [WEB, BANK, NOBODY]),
        (SourceIn(ip_network("::/0")), []),
        (SourceIn(ip_network("::ffff:0:0/96")), []),
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_the_gate_tells_clients_apart_by_each_condition(
    gate: Rulings, condition: PrincipalIs | SourceIn, met_by: list[Client], *, wanted: bool
) -> None:
    for client in (WEB, BANK, NOBODY):
        assert client.meets(condition) == (client in met_by)
        met = (client in met_by) == wanted
        assert gate.allows(ask(condition, wanted=wanted), client) == met, client


def test_addresses_of_ipv6_are_in_blocks_of_ipv6_alone(gate: Rulings) -> None:
    inside, outside = ip_address("fd00:7::1"), ip_address("fd00:8::1")
    block = ask(SourceIn(ip_network("fd00:6::/31")))
    wide = ask(SourceIn(ip_network("fd00::/28")))
    assert [gate.allows_at(block, one, "") for one in (inside, outside)] == [True, False]
    assert [gate.allows_at(wide, one, "") for one in (inside, outside)] == [True, True]
    assert not gate.allows_at(ask(SourceIn(ip_network("0.0.0.0/0"))), inside, "")


def test_what_is_not_whole_or_cannot_be_read_is_seen(gate: Rulings) -> None:
    packed = pack_ruling(ask(named(TextKind.REGEX, ".*/ns/web/.*")))
    assert gate.is_whole(packed)
    for wrong in (b"", packed[:7], packed[:-1], packed + b"\0"):
        assert not gate.is_whole(wrong)
    assert gate.can_read(WEB.principal.encode())
    assert not gate.can_read("spiffe://cl\u00fcster/ns/a/sa/b".encode())
    assert not gate.can_read(b"spiffe://a\n")


def test_many_clients_of_paths_of_their_own_stay_as_many_cases() -> None:
    """Else each policy more would double them."""
    asked = [(path(f"/p{number:02}/"), named(TextKind.EXACT, f"c{number}")) for number in range(60)]
    found = rulings((rules(Action.ALLOW, *asked),), PORT)
    assert len(found) == 61
    assert all(len(one.ruling.verdicts) == 2 for one in found[:60])  # type: ignore[union-attr]
    assert found[-1].ruling == NO
    methods = [(HeaderMatch(":method", TextMatch(TextKind.EXACT, f"M{n}")), principal) for n, (_, principal) in enumerate(asked)]  # fmt: skip
    assert len(rulings((rules(Action.DENY, *methods),), PORT)) == 61


def test_what_would_be_too_many_is_left_out_with_its_reason() -> None:
    headers = [
        (HeaderMatch(f"x-{n}", TextMatch(TextKind.EXACT, "1")), named(TextKind.EXACT, f"c{n}"))
        for n in range(12)
    ]
    with pytest.raises(BeyondError, match=f"more than {MOST_CASES} cases"):
        rulings((rules(Action.ALLOW, *headers),), PORT)
    many = [(Anything(), SourceIn(ip_network(f"10.0.{n}.0/24"))) for n in range(MOST_FACTS + 1)]
    (one,) = rulings((rules(Action.ALLOW, *many),), PORT)
    assert isinstance(one.ruling, ByClient)
    with pytest.raises(BeyondError, match=f"more than {MOST_FACTS} conditions"):
        pack_ruling(one.ruling)
    for pattern, why in ((r"\bx", "client's name"), ("(.*a.{14}b)", "more than")):
        with pytest.raises(BeyondError, match=why):
            pack_ruling(ask(named(TextKind.REGEX, pattern)))


def test_filters_in_a_row_are_all_asked(gate: Rulings) -> None:
    """Denied first, then allowed; who is denied by nobody and allowed by nobody is denied."""
    web, near = named(TextKind.REGEX, ".*/ns/web/.*"), SourceIn(ip_network("10.0.0.0/16"))
    deny = rules(Action.DENY, (path("/admin"), Not(web)), (path("/far"), Not(near)))
    allow = rules(Action.ALLOW, (path("/a"), near), (path("/admin"), Anything()), (Anything(), AllOf((web, near))))  # fmt: skip
    found = rulings((deny, allow), PORT)

    def said(target: str, client: Client) -> bool:
        for one in found:
            if all(target.startswith(h.text.value) != h.invert for h in one.asked):
                by_words = decided(one.ruling, client).allowed
                if isinstance(one.ruling, ByClient) and one.by_client:
                    assert gate.allows(one.ruling, client) == by_words
                return by_words
        raise AssertionError(f"nothing is decided of {target}")

    everyone = (WEB, BANK, NOBODY)
    assert [said("/admin", client) for client in everyone] == [True, False, False]
    assert [said("/a", client) for client in everyone] == [True, True, False]
    assert [said("/far", client) for client in everyone] == [True, False, False]
    assert [said("/x", client) for client in everyone] == [True, False, False]


def test_a_route_that_not_everyone_may_take_is_the_gates() -> None:
    every = Route(
        match=RouteMatch(PathMatch(PathKind.PREFIX, "/")),
        action=Forward((WeightedCluster("c", 1),)),
    )
    table = RouteTable(name="t", virtual_hosts=(VirtualHost("v", ("*",), (every,)),))
    web = named(TextKind.REGEX, ".*/ns/web/.*")
    guarded = replace(PORT, rbac=(rules(Action.DENY, (path("/a"), web)),))
    cases = split(table, guarded)
    rows = case_rows(cases, {})
    first, second = (Row.unpack(one) for one in rows.rows[:2])
    assert (first.kind, second.kind) == (GOVERNED, FORWARD)
    packed = rows.texts[first.ruling : first.ruling + first.ruling_size]
    assert isinstance(cases.rulings[0], ByClient)
    assert packed == pack_ruling(cases.rulings[0])
    assert first.ruling % 8 == 0
    assert not second.ruling_size
    # Nor does the kernel answer where it is not the same for all.
    hello = replace(every, action=DirectResponse(200, b"hello"))
    told = replace(table, virtual_hosts=(VirtualHost("v", ("*",), (hello,)),))
    answers = [Row.unpack(one).answer for one in case_rows(split(told, guarded), {}).rows[:2]]
    assert answers[0] == 0
    assert answers[1]
    # What all clients have in common does not slow anybody down.
    alike = replace(PORT, rbac=(rules(Action.ALLOW, (Anything(), web), (Anything(), Anything())),))
    rows = case_rows(split(table, alike), {})
    assert Row.unpack(rows.rows[0]).kind == FORWARD


def test_rulings_that_differ_have_bytes_that_differ() -> None:
    texts = [named(TextKind.EXACT, "spiffe://a"), named(TextKind.EXACT, "spiffe://b"), named(TextKind.PREFIX, "spiffe://a")]  # fmt: skip
    made = sorted(pack_ruling(ask(one)) for one in texts)
    assert all(one != other for one, other in pairwise(made))
