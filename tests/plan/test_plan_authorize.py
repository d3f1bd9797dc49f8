# SPDX-License-Identifier: Apache-2.0
"""The policy that is named for a request and its client is the one that a real Envoy decides by.

And so is what the gate does where it is told of which clients what is decided, by its own code.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import re2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime.errors import KmeshError
from runtime.model.http import (
    DirectResponse,
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
)
from runtime.model.policy import Action, Identity
from runtime.plan.client import Client, identity_from
from runtime.plan.walk import route
from runtime.tables.http_authorization import Decision
from runtime.tables.http_cases import DENIED, Cases, split
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_regex import full_match
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from tests.dataplane.answer_worlds import conditions, port
from tests.gate.rulings import Rulings, decided
from tests.plan.envoy_answers import PEER, filters_wire, resource
from tests.plan.envoy_oracle import Answer, Envoy, envoy
from tests.plan.http_worlds import PATTERNS, VALUE_PATTERNS, Maker, tables, wire

TABLES = int(os.environ.get("KMESH_AUTHORIZE_TABLES", "20"))
REQUESTS = 40
COUNTED: Counter[str] = Counter()
_DETAILS = "rbac_access_denied_matched_policy["
_TYPES = "type.googleapis.com/envoy.extensions"
IDENTITY = Identity("cluster.local", "web", "front")
ADDRESSES = tuple(map(ip_address, ("10.0.0.1", "10.0.1.9", "192.0.2.7", "fd00:7::1")))
CLIENTS = tuple(
    Client(who, where)
    for who in (None, IDENTITY, Identity("cluster.local", "bank", "default"))
    for where in ADDRESSES
)
# Where a request says who its client is: the filter state comes from a header, the address from another.
SAYS = {
    "name": "peer",
    "typed_config": {
        "@type": f"{_TYPES}.filters.http.set_filter_state.v3.Config",
        "on_request_headers": [
            {
                "object_key": PEER,
                "factory_key": "envoy.string",
                "format_string": {"text_format_source": {"inline_string": "%REQ(x-client)%"}, "omit_empty_values": True},
                "skip_if_empty": True,
            }
        ],
    },
}  # fmt: skip
TELLS = {
    "local_reply_config": {
        "mappers": [
            {
                "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 403, "runtime_key": "none"}}}},
                "headers_to_add": [{"header": {"key": "x-policy", "value": "%RESPONSE_CODE_DETAILS%"}}],
            }
        ]
    }
}  # fmt: skip

clients = st.one_of(
    st.builds(
        SourceIn,
        st.sampled_from(
            ("10.0.0.0/8", "10.0.0.0/24", "192.0.2.7/32", "0.0.0.0/0", "fd00:4::/30", "::/0")
        ).map(ip_network),
    ),
    st.builds(
        PrincipalIs,
        st.sampled_from(
            (
                TextMatch(TextKind.EXACT, "spiffe://cluster.local/ns/web/sa/front"),
                TextMatch(TextKind.REGEX, ".*/ns/web/.*"),  # what Istio makes of a namespace
                TextMatch(TextKind.SUFFIX, "/sa/default"),
                TextMatch(TextKind.PREFIX, "spiffe://"),
            )
        ),
    ),
)
principals = st.one_of(conditions, clients, clients, st.builds(Not, clients))
few = st.lists(principals, min_size=1, max_size=2).map(tuple)
rbacs = st.builds(
    Rbac,
    action=st.sampled_from((Action.ALLOW, Action.DENY)),
    policies=st.lists(
        st.tuples(st.lists(conditions, min_size=1, max_size=2).map(tuple), few), max_size=3
    ).map(
        lambda every: tuple(
            RbacPolicy(
                name=f"ns[shop]-policy[p{number}]-rule[{number % 2}]",
                permissions=one[0],
                principals=one[1],
            )
            for number, one in enumerate(every)
        )
    ),
)


@st.composite
def guarded(draw: st.DrawFn) -> RouteTable:
    made = draw(tables())
    hosts = tuple(
        replace(
            host,
            routes=tuple(
                replace(one, rbac=draw(st.lists(rbacs, max_size=1).map(tuple)))
                for one in host.routes
            ),
        )
        for host in made.virtual_hosts
    )
    return replace(made, virtual_hosts=hosts)


def telling(table: RouteTable) -> dict[str, Any]:
    """Routes that answer with the policy that let the request pass."""
    made = resource(table)
    word = "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%"
    for host in made["virtual_hosts"]:
        for one in host["routes"]:
            one["response_headers_to_add"] = [{"header": {"key": "x-policy", "value": word}}]
    return made


@contextmanager
def oracle_of(checkout: Path, directory: Path, governs: HttpPort) -> Iterator[Envoy]:
    with envoy(
        checkout / ".venv/bin/envoy",
        directory,
        filters=[SAYS, *filters_wire(governs)],
        make=telling,
        manager=TELLS,
    ) as running:
        yield running


PLAIN = port(steps=(Step.RBAC,))


@pytest.fixture(scope="module")
def oracle(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with oracle_of(checkout, tmp_path_factory.mktemp("envoy"), PLAIN) as running:
        yield running


def said(client: Client) -> tuple[tuple[str, str], ...]:
    told = [("x-forwarded-for", str(client.address))]
    return (*told, *([("x-client", client.principal)] if client.principal else []))


def of_envoy(answer: Answer) -> Decision:
    if answer.policy.startswith(_DETAILS):
        name = answer.policy.removeprefix(_DETAILS).removesuffix("]")
        return Decision(allowed=False, policies=() if name == "none" else (name,))
    return Decision(allowed=True, policies=(answer.policy,) if answer.policy else ())


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Rulings:
    return Rulings.compile(tmp_path_factory.mktemp("rulings"))


def agree(
    oracle: Envoy, routes: RouteTable, governs: HttpPort, seeds: list[int], gate: Rulings
) -> None:
    oracle.load(routes)
    maker = Maker(routes)
    of_anyone = split(routes, governs)
    for_anyone = of_anyone, compile_routes(of_anyone.table)
    compiled = {}
    for client in CLIENTS:
        cases = split(routes, governs, client=client.meets)
        compiled[client] = cases, compile_routes(cases.table)
    requests = []
    for seed in seeds:
        client = random.Random(seed).choice(CLIENTS)
        request = maker.request(seed)
        if all(name.lower() != "connection" for name, _ in request.headers):
            requests.append((client, replace(request, headers=(*request.headers, *said(client)))))
    answers = oracle.ask([wire(request) for _, request in requests])
    for (client, request), answer in zip(requests, answers, strict=True):
        cases, tables_of = compiled[client]
        routed = route(tables_of, wire(request))
        if routed.verdict is not Verdict.OK or routed.route in tables_of.rough:
            COUNTED["left to a proxy"] += 1
            continue
        if routed.route is None:
            assert answer.status == 404
            continue
        ours = cases.rulings[routed.route] or Decision(allowed=True)
        case = [one for host in cases.table.virtual_hosts for one in host.routes][routed.route]
        assert (case.action is DENIED) == (not ours.allowed)
        if case.beyond:
            COUNTED["left to a proxy"] += 1
            continue
        assert ours == of_envoy(answer), (request, client)
        same_for_the_gate(gate, for_anyone, wire(request), client, ours)
        COUNTED[
            f"{'allowed' if ours.allowed else 'denied'} {'by name' if ours.policies else ''}"
        ] += 1


def same_for_the_gate(
    gate: Rulings, tables: tuple[Cases, CompiledRoutes], head: bytes, client: Client, ours: Decision
) -> None:
    """What is decided without knowing the client, and then of this client, is the same."""
    cases, compiled = tables
    routed = route(compiled, head)
    if routed.verdict is not Verdict.OK or routed.route is None or routed.route in compiled.rough:
        COUNTED["by client: left to a proxy"] += 1
        return
    case = [one for host in cases.table.virtual_hosts for one in host.routes][routed.route]
    if case.beyond:
        COUNTED["by client: left to a proxy"] += 1
        return
    ruling = cases.rulings[routed.route] or Decision(allowed=True)
    assert decided(ruling, client) == ours, (head, client, ruling)
    assert (case.action is DENIED) == (ruling.allowed is False)
    if ruling.allowed is None:
        assert gate.allows(ruling, client) == ours.allowed, (head, client, ruling)
        COUNTED[f"by client: {ours.allowed}"] += 1


@settings(
    max_examples=TABLES,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    routes=guarded(),
    seeds=st.integers(0, 2**32).map(lambda seed: [seed + n for n in range(REQUESTS)]),
)
def test_the_policy_of_a_route_is_envoys(
    oracle: Envoy, gate: Rulings, routes: RouteTable, seeds: list[int]
) -> None:
    agree(oracle, routes, PLAIN, seeds, gate)


def test_enough_of_it_was_compared() -> None:
    print(dict(COUNTED))
    seen = sum(count for what, count in COUNTED.items() if not what.startswith("by client"))
    assert COUNTED["left to a proxy"] < seen / 3
    assert (
        min(COUNTED["denied by name"], COUNTED["allowed by name"], COUNTED["denied "]) > seen / 200
    )


def header(name: str, value: str) -> HeaderMatch:
    return HeaderMatch(name, TextMatch(TextKind.EXACT, value))


def policy(name: str, permission: Any, principal: Any) -> RbacPolicy:
    return RbacPolicy(name=name, permissions=(permission,), principals=(principal,))


def test_filters_in_a_row_decide_as_envoys(checkout: Path, gate: Rulings, tmp_path: Path) -> None:
    """A port denies first, and then allows: the first that denies is named, else the last that allows."""
    web = PrincipalIs(TextMatch(TextKind.REGEX, ".*/ns/web/.*"))
    near = SourceIn(ip_network("10.0.0.0/24"))
    path = PathIs(TextMatch(TextKind.PREFIX, "/a"))
    governs = port(
        steps=(Step.RBAC,),
        rbac=(
            Rbac(
                action=Action.DENY,
                policies=(
                    policy("ns[shop]-policy[a]-rule[0]", header(":method", "POST"), Not(near)),
                    policy("ns[shop]-policy[b]-rule[1]", header("x-a", "1"), Not(web)),
                ),
            ),
            Rbac(
                action=Action.ALLOW,
                policies=(
                    policy("ns[shop]-policy[c]-rule[0]", path, web),
                    policy("ns[shop]-policy[d]-rule[0]", header(":method", "GET"), near),
                ),
            ),
        ),
    )
    every = Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/")), action=DirectResponse(200))
    routes = RouteTable(name="t", virtual_hosts=(VirtualHost("h", ("*",), (every,)),))
    probed = replace(governs, rbac=tuple(map(_probed, governs.rbac)))
    with oracle_of(checkout, tmp_path, probed) as running:
        agree(running, routes, governs, list(range(150)), gate)


def test_enough_of_it_was_decided_by_client() -> None:
    assert min(COUNTED["by client: True"], COUNTED["by client: False"]) > 10


def _probed(rules: Rbac) -> Rbac:
    """The same rules, by which the oracle's own question is allowed."""
    if rules.action is Action.DENY:
        return rules
    probe = HeaderMatch(":authority", TextMatch(TextKind.EXACT, "which-version.test"))
    return replace(rules, policies=(*rules.policies, policy("z", probe, Not(Not(probe)))))


def test_a_client_that_is_not_told_is_asked_for() -> None:
    block = SourceIn(ip_network("10.0.0.0/8"))
    with pytest.raises(KmeshError, match=r"in 10\.0\.0\.0/8"):
        Client(IDENTITY).meets(block)
    spiffe = PrincipalIs(TextMatch(TextKind.PREFIX, "spiffe://"))
    assert not Client().meets(spiffe)
    assert Client(IDENTITY).meets(spiffe)
    assert identity_from("spiffe://cluster.local/ns/web/sa/front") == IDENTITY
    assert identity_from(IDENTITY.principal) == IDENTITY
    for wrong in ("", "web", "td/ns/web/sa/", "td/sa/web/ns/x", "td/ns/a/sa/b/c"):
        with pytest.raises(KmeshError, match="is no principal"):
            identity_from(wrong)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    pattern=st.sampled_from(
        [one for one in (*PATTERNS, *VALUE_PATTERNS) if r"\b" not in one and r"\p" not in one]
    ),
    text=st.text("ab/pi10v,. A", max_size=8),
)
def test_a_text_is_matched_as_re2_does(pattern: str, text: str) -> None:
    assert full_match(pattern, text) == (re2.fullmatch(pattern, text) is not None)
