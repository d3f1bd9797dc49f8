# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl authz check`: who lets a request pass, of the policies on requests and those on connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from runtime.cli.ctl import kmeshctl
from runtime.control import authorize_request
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.launch.http_authorize import authorize_http
from runtime.model.http import (
    Abort,
    Anything,
    DirectResponse,
    Forward,
    HeaderMatch,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    PrincipalIs,
    Rbac,
    RbacPolicy,
    Route,
    RouteMatch,
    RouteTable,
    Step,
    TextKind,
    TextMatch,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange
from runtime.model.mesh import NetworkAddress, Service, ServicePort, Workload
from runtime.model.policy import Action, Match, Policy, PolicyScope, StringKind, StringMatch
from runtime.server.http import Reply, serve_unix
from runtime.source.update import Update
from runtime.tables.http_routes import compile_routes

VIP = ip_address("10.96.0.10")
PORT = ServicePort(service_port=80, target_port=9080)
REVIEWS = Service(
    name="reviews", namespace="shop", hostname="reviews.shop.svc", ports=(PORT,),
    addresses=(NetworkAddress(VIP),),
)  # fmt: skip
POD = Workload(
    uid="pod", name="reviews-1", namespace="shop", addresses=(ip_address("10.0.0.2"),),
    services={REVIEWS.key: (PORT,)},
)  # fmt: skip


def rules(action: Action, name: str, permission: Any, principal: Any) -> Rbac:
    policy = RbacPolicy(name=name, permissions=(permission,), principals=(principal,))
    return Rbac(action=action, policies=(policy,))


POST = HeaderMatch(":method", TextMatch(TextKind.EXACT, "POST"))
WEB = PrincipalIs(TextMatch(TextKind.REGEX, ".*/ns/web/.*"))
HTTP = HttpPort(
    listener="0.0.0.0_80", address=None, port=80, table="80", steps=(Step.RBAC, Step.FAULT),
    rbac=(
        rules(Action.DENY, "ns[shop]-policy[no-writes]-rule[2]", POST, Anything()),
        rules(Action.ALLOW, "ns[shop]-policy[web]-rule[0]", Anything(), WEB),
    ),
)  # fmt: skip


def a_route(name: str, path: str, **more: Any) -> Route:
    match = RouteMatch(PathMatch(PathKind.PREFIX, path))
    about = {"action": Forward((WeightedCluster("c", 1),))} | more
    return Route(name=name, match=match, **about)


TABLE = RouteTable(
    name="80",
    virtual_hosts=(
        VirtualHost(
            "reviews", (REVIEWS.hostname,),
            (
                a_route("open", "/open", rbac=(), action=DirectResponse(200)),
                a_route("slow", "/slow", beyond=("timeout: 3s",)),
                a_route("all", "/", action=DirectResponse(200)),
            ),
        ),
    ),
)  # fmt: skip


def picture(port: HttpPort = HTTP, *policies: Policy) -> View:
    view = View()
    view.take(Update(services=(REVIEWS,), workloads=(POD,), policies=policies, complete=True))
    listener = Listener(name=port.listener, ports=(port,), tables=("80",))
    change = HttpChange(complete=True, listeners={port.listener: listener}, tables={"80": TABLE})
    view.take(Update(http=change))
    return view


def ask(view: View, target: str, method: str = "GET", **who: Any) -> Any:
    asked = {"service": "shop/reviews", "method": method, "target": target, **who}
    return authorize_http(asked, view=view, why_not="")


def test_the_rule_that_decides_is_named_for_each_client() -> None:
    view = picture()
    denied = ask(view, "/a", "POST", namespace="web")
    assert (denied["allowed"], denied["http"]["meaning"]) == (
        False, "denied by shop/no-writes, rule 2",
    )  # fmt: skip
    allowed = ask(view, "/a", namespace="web")
    assert (allowed["allowed"], allowed["http"]["policies"]) == (
        True,
        [{"name": "ns[shop]-policy[web]-rule[0]", "policy": "shop/web", "rule": 0}],
    )
    for nobody in ({}, {"principal": "cluster.local/ns/bank/sa/web"}):
        answer = ask(view, "/a", **nobody)
        assert (answer["allowed"], answer["http"]["meaning"]) == (
            False, "denied: no policy allows it",
        )  # fmt: skip


def test_a_route_may_have_rules_of_its_own_and_another_place() -> None:
    view = picture()
    free = ask(view, "/open", "POST")
    assert (free["allowed"], free["http"]["policies"]) == (True, [])
    assert free["http"]["route"] == {"virtual_host": "reviews", "index": 1, "name": "open"}
    slow = ask(view, "/slow", namespace="web")["http"]
    assert (slow["by"], slow["allowed"], slow["route"]["name"]) == ("waypoint", True, "slow")
    assert ask(view, "/a", namespace="web")["http"]["by"] == "gate"
    # The gate asks for the client first of all: where something else comes before, it is the waypoint's.
    late = picture(replace(HTTP, abort=Abort(status=503), steps=(Step.FAULT, Step.RBAC)))
    assert ask(late, "/a", namespace="web")["http"]["by"] == "waypoint"
    plain = picture(replace(HTTP, rbac=HTTP.rbac[:1]))
    assert ask(plain, "/a")["http"]["by"] == "gate"


@pytest.mark.parametrize("lost", ["rbac.rules.matcher: is not known here"])
def test_rules_that_could_not_be_read_are_not_guessed(lost: str) -> None:
    answer = ask(picture(replace(HTTP, beyond=(lost,))), "/a", namespace="web")
    assert answer["allowed"] is None
    assert lost in answer["http"]["meaning"]
    other = "http_filters jwt: is not known here"
    noted = ask(picture(replace(HTTP, beyond=(other,))), "/a", namespace="web")
    assert (noted["allowed"], noted["http"]["notes"]) == (True, [other])
    assert ask(picture(), "/a\\b", namespace="web")["allowed"] is None


def connection_policy(name: str, *matches: Match, action: Action = Action.ALLOW) -> Policy:
    return Policy(
        name=name, namespace="shop", scope=PolicyScope.NAMESPACE, action=action,
        groups=((matches,),),
    )  # fmt: skip


def test_policies_on_connections_are_judged_too() -> None:
    web = connection_policy("only-web", Match(namespaces=(StringMatch(StringKind.EXACT, "web"),)))
    free = replace(HTTP, rbac=())
    view = picture(free, web)
    (yes,) = ask(view, "/a", namespace="web")["connections"]
    assert (yes["allowed"], yes["policy"], yes["endpoints"]) == (True, "shop/only-web", 1)
    no = ask(view, "/a", namespace="bank")
    assert (no["allowed"], no["connections"][0]["reason"]) == (False, "no allow policy matches")
    assert no["http"]["allowed"]
    near = connection_policy("near", Match(source_ips=(ip_network("10.0.0.0/24"),)))
    with pytest.raises(KmeshError, match="policy shop/near asks for the client's address"):
        ask(picture(free, near), "/a")
    assert ask(picture(free, near), "/a", ip="10.0.0.7")["allowed"]
    assert not ask(picture(free, near), "/a", ip="10.9.0.7")["allowed"]


def test_what_a_waypoint_judges_of_requests_is_not_called_allowed() -> None:
    http = connection_policy("methods", Match(), action=Action.DENY)
    answer = ask(picture(replace(HTTP, rbac=()), http), "/a")
    assert answer["allowed"] is None
    assert answer["connections"][0]["http_policies"] == ["shop/methods"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """The command, and a daemon that is there as far as this question goes."""
    view = picture()
    server = serve_unix(
        tmp_path / "kmesh.sock",
        {("POST", "/authz/check"): lambda r: Reply(authorize_http(r.body, view=view, why_not=""))},
    )
    try:
        yield lambda *words: CliRunner().invoke(
            kmeshctl, ["authz", "check", "--run-dir", str(tmp_path), *words]
        )
    finally:
        server.close()


def test_kmeshctl_tells_it_to_people_and_machines(run: Callable[..., Result]) -> None:
    words = ("--service", "shop/reviews", "--namespace", "web", "--ip", "10.0.0.9")
    text = run(*words, "--", "post", "/a", "-H", "x-a: 1").output
    assert text.splitlines() == [
        "POST /a HTTP/1.1 to shop/reviews.shop.svc (10.96.0.10 port 80)",
        "  client:      spiffe://cluster.local/ns/web/sa/default, 10.0.0.9",
        "  route:       all, 3 of virtual host reviews",
        "  request:     denied by shop/no-writes, rule 2; judged by the gate",
        "  connection:  to 1 endpoint: no policy forbids it",
        "DENIED",
    ]
    answer = json.loads(run(*words, "--output", "json", "--", "GET", "/a").output)
    assert answer["allowed"] is True
    assert answer["client"] == {
        "principal": "spiffe://cluster.local/ns/web/sa/default", "address": "10.0.0.9",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--service", "nobody", "--", "GET", "/"), "no service 'nobody'"),
        (("--service", "reviews", "--port", "81", "--", "GET", "/"), "takes no TCP at port 81"),
        (("--service", "reviews", "--", "GET"), "say which request"),
        (("--service", "reviews", "--ip", "here", "--", "GET", "/"), "'here' does not appear"),
        (("--service", "reviews", "--principal", "x", "--", "GET", "/"), "'x' is no principal"),
    ],
)
def test_kmeshctl_says_what_cannot_be_asked(
    run: Callable[..., Result], words: tuple[str, ...], wrong: str
) -> None:
    result = run(*words)
    assert result.exit_code != 0
    assert wrong in f"{result.output}{result.exception}"


def test_rules_are_made_into_tables_for_the_request_s_own_route_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a port of many routes and policies takes minutes: each route would be there once for each policy."""
    sizes = []

    def compile_counted(table: RouteTable, **options: Any) -> Any:
        sizes.append(sum(len(host.routes) for host in table.virtual_hosts))
        return compile_routes(table, **options)

    monkeypatch.setattr(authorize_request, "compile_routes", compile_counted)
    policies = tuple(
        RbacPolicy(
            name=f"ns[shop]-policy[p{number}]-rule[0]",
            permissions=(HeaderMatch("x-key", TextMatch(TextKind.EXACT, f"k{number}")),),
            principals=(Anything(),),
        )
        for number in range(30)
    )
    view = picture(replace(HTTP, rbac=(Rbac(action=Action.ALLOW, policies=policies),)))
    routes = tuple(a_route(f"r{number}", f"/item{number}/") for number in range(200))
    host = VirtualHost("reviews", (REVIEWS.hostname,), routes)
    change = HttpChange(tables={"80": replace(TABLE, virtual_hosts=(host,))})
    view.take(Update(http=change))
    yes = ask(view, "/item70/x", headers=["x-key: k7"])["http"]
    assert (yes["allowed"], yes["route"]["name"]) == (True, "r70")
    assert [one["policy"] for one in yes["policies"]] == ["shop/p7"]
    assert ask(view, "/item70/x", headers=["x-key: none"])["http"]["allowed"] is False
    nowhere = ask(view, "/other", headers=["x-key: k7"])["http"]
    assert (nowhere["allowed"], nowhere["route"]) == (True, None)
    assert ask(view, "/other")["http"]["allowed"] is False
    assert set(sizes[::2]) == {200}
    assert max(sizes[1::2]) < 100, sizes


def test_policies_are_looked_for_on_the_service_s_own_workloads_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a mesh of many workloads and policies takes seconds: each is held against each."""
    looked = []
    applies_to = Policy.applies_to

    def note(policy: Policy, workload: Workload) -> bool:
        looked.append(workload.uid)
        return applies_to(policy, workload)

    match = Match(namespaces=(StringMatch(StringKind.EXACT, "bank"),))
    policy = Policy(
        name="no-bank", namespace="shop", scope=PolicyScope.NAMESPACE, action=Action.DENY,
        groups=(((match,),),),
    )  # fmt: skip
    view = picture(HTTP, policy)
    others = tuple(replace(POD, uid=f"other-{number}", services={}) for number in range(20))
    view.take(Update(workloads=others))
    monkeypatch.setattr(Policy, "applies_to", note)
    (connections,) = ask(view, "/a", namespace="bank")["connections"]
    assert (connections["policy"], connections["endpoints"]) == ("shop/no-bank", 1)
    assert looked == [POD.uid]
