# SPDX-License-Identifier: Apache-2.0
"""Rules of those whom routes lead to: the same for all of them, or the waypoint's with the reason."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.control.routes import plan_of
from runtime.control.view import View
from runtime.launch.http_authorize import authorize_http
from runtime.model.http import (
    Abort,
    AnyOf,
    Anything,
    Forward,
    HeaderMatch,
    HttpEndpoint,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    PortIn,
    Rbac,
    RbacPolicy,
    Redirect,
    Route,
    RouteMatch,
    RouteTable,
    Step,
    TextKind,
    TextMatch,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.http_cluster import Balancer, CircuitBreakers, Cluster, Endpoints
from runtime.model.http_picture import HttpChange
from runtime.model.mesh import NetworkAddress, Service, ServicePort, Workload
from runtime.model.policy import Action, Match, Policy, PolicyScope, StringKind, StringMatch
from runtime.plan.planned import Place, PlannedRoute
from runtime.source.policy_picture import completed
from runtime.source.update import Update

VIP, ONE, TWO = map(ip_address, ("10.96.0.10", "10.0.0.1", "10.0.0.2"))
PORT = ServicePort(service_port=80, target_port=8080)
SERVICE = Service(
    name="web", namespace="shop", hostname="web.shop.svc", ports=(PORT,),
    addresses=(NetworkAddress(VIP),),
)  # fmt: skip
POST = HeaderMatch(":method", TextMatch(TextKind.EXACT, "POST"))
GET = HeaderMatch(":method", TextMatch(TextKind.EXACT, "GET"))
ALL = RouteMatch(PathMatch(PathKind.PREFIX, ""))


def pod(name: str, address: Any, **more: Any) -> Workload:
    return Workload(
        uid=name, name=name, namespace="shop", addresses=(address,), services={SERVICE.key: (PORT,)},
        all_labels=True, **more,
    )  # fmt: skip


def rule(permission: Any = POST, name: str = "p", number: int = 0) -> RbacPolicy:
    return RbacPolicy(
        name=f"ns[shop]-policy[{name}]-rule[{number}]",
        permissions=(permission,),
        principals=(Anything(),),
    )


def policy(name: str = "p", action: Action = Action.DENY, **more: Any) -> Policy:
    about: dict[str, Any] = {
        "rules": (rule(name=name),),
        "groups": (((Match(),),),),
        "scope": PolicyScope.NAMESPACE,
        "namespace": "shop",
    }
    return Policy(name=name, action=action, **(about | more))


def view(
    *policies: Policy,
    pods: tuple[Workload, ...] = (pod("a", ONE), pod("b", TWO)),
    routes: tuple[Route, ...] = (),
    **port: Any,
) -> View:
    made = View()
    made.take(Update(services=(SERVICE,), workloads=pods, policies=policies, complete=True))
    clusters = {name: cluster(name) for name in ("c", "d")}
    endpoints = {
        "c": Endpoints(
            name="c",
            endpoints=tuple(
                HttpEndpoint(address=at, port=8080) for one in pods for at in one.addresses
            ),
        ),
        "d": Endpoints(
            name="d", endpoints=(HttpEndpoint(address=ip_address("10.9.9.9"), port=80),)
        ),
    }
    to_c = Route(name="all", match=ALL, action=Forward((WeightedCluster("c"),)))
    table = RouteTable(name="t", virtual_hosts=(VirtualHost("h", ("*",), routes or (to_c,)),))
    about: dict[str, Any] = {"listener": "l", "address": VIP, "port": 80, "table": "t"}
    listener = Listener(name="l", ports=(HttpPort(**(about | port)),), tables=("t",))
    made.take(
        Update(
            http=HttpChange(
                complete=True,
                listeners={"l": listener},
                tables={"t": table},
                clusters=clusters,
                endpoints=endpoints,
            )
        )
    )
    return made


def cluster(name: str) -> Cluster:
    return Cluster(
        name=name, hostname="web.shop.svc", namespace="shop", port=80, endpoints_name=name,
        balancer=Balancer.ROUND_ROBIN, breakers=CircuitBreakers(), panic_percent=0,
    )  # fmt: skip


def planned(of: View, number: int = 0) -> PlannedRoute:
    plan = plan_of(of, why_not="")
    assert plan is not None
    (port,) = plan.ports.values()
    return port.hosts[0].routes[number]


def asked(of: View, method: str = "GET", **more: Any) -> Any:
    question = {"service": "shop/web", "method": method, "target": "/a", **more}
    return authorize_http(question, view=of, why_not="")


def test_the_rules_of_all_endpoints_are_the_routes() -> None:
    made = view(policy())
    assert planned(made).place is Place.KERNEL
    assert planned(made).route.guards == (Rbac(action=Action.DENY, policies=(rule(),)),)
    answer = asked(made, "POST")
    assert (answer["allowed"], answer["http"]["meaning"]) == (False, "denied by shop/p, rule 0")
    assert asked(made)["allowed"] is True
    assert answer["http"]["by"] == "gate"


def test_who_allows_by_connection_allows_beside_who_allows_by_request() -> None:
    """Each of the policies may be the one that lets a request in; what denies connections does that where it arrives."""
    web = ((Match(namespaces=(StringMatch(StringKind.EXACT, "web"),)),),)
    near = policy("near", Action.ALLOW, rules=None, groups=(web,))
    deny = policy("deny", Action.DENY, rules=None, groups=(web,))
    (allow,) = planned(view(policy("p", Action.ALLOW), near, deny)).route.guards
    assert [one.name for one in allow.policies] == [
        "ns[shop]-policy[near]-rule[0]",
        "ns[shop]-policy[p]-rule[0]",
    ]
    of_requests = view(policy("p", Action.ALLOW), near)
    for namespace, method, allowed in (("web", "GET", True), ("bank", "GET", False), ("bank", "POST", True)):  # fmt: skip
        assert asked(of_requests, method, namespace=namespace)["http"]["allowed"] is allowed
    assert planned(view(near, deny)).route.guards == ()


@pytest.mark.parametrize(
    ("policies", "pods", "why"),
    [
        (
            [policy(scope=PolicyScope.WORKLOAD_SELECTOR)],
            (pod("a", ONE, authorization_policies=("shop/p",)), pod("b", TWO)),
            "authorization policies: they differ among the endpoints of cluster c",
        ),
        (
            [policy(scope=PolicyScope.WORKLOAD_SELECTOR, selector=(("v", "1"),))],
            (replace(pod("a", ONE), all_labels=False),),
            "authorization policy shop/p: the labels of workload a are not known",
        ),
        (
            [policy(rules=None)],
            (pod("a", ONE),),
            "authorization policy shop/p: it has conditions on HTTP, which the workload API does not tell",
        ),
        (
            [policy(rules=(), groups=(), beyond=("action: CUSTOM, which ext decides",))],
            (pod("a", ONE),),
            "authorization policy shop/p: action: CUSTOM, which ext decides",
        ),
    ],
)
def test_what_cannot_be_decided_is_the_waypoints(
    policies: list[Policy], pods: tuple[Workload, ...], why: str
) -> None:
    made = view(*policies, pods=pods)
    assert planned(made).place is Place.WAYPOINT
    assert planned(made).reasons == (why,)
    answer = asked(made, "POST")
    assert answer["allowed"] is None
    assert why in answer["http"]["meaning"]
    trial = view(*(replace(one, dry_run=True) for one in policies), pods=pods)
    assert planned(trial).place is Place.KERNEL


def test_a_port_is_the_endpoints_own() -> None:
    """As the policy's author sees it: not the service's."""
    for number, denied in ((8080, True), (80, False)):
        both = AnyOf((POST, PortIn(number, number)))
        assert asked(view(policy(rules=(rule(both),))))["allowed"] is not denied


def test_shares_of_a_route_must_be_guarded_alike() -> None:
    both = Forward((WeightedCluster("c"), WeightedCluster("d")))
    made = view(policy(), routes=(Route(match=ALL, action=both),))
    assert planned(made).reasons == (
        "authorization policies: they differ among the clusters of the route",
    )
    none_of_d = Forward((WeightedCluster("c"), WeightedCluster("d", 0)))
    made = view(policy(), routes=(Route(match=ALL, action=none_of_d),))
    assert planned(made).place is Place.KERNEL


def test_who_allows_at_one_of_two_at_an_address_allows_nothing_at_the_other() -> None:
    """Each of the two is asked: in one filter the right of one would open the other."""
    here = policy("here", Action.ALLOW)
    there = policy("there", Action.ALLOW, rules=(rule(GET, "there"),), namespace="bank")
    both = (pod("a", ONE), replace(pod("b", ONE), namespace="bank"))
    for method in ("GET", "POST"):
        assert asked(view(here, there, pods=both), method)["http"]["allowed"] is False
    assert asked(view(here, pods=both), "POST")["http"]["allowed"], "the other asks nothing"
    alike = (pod("a", ONE), pod("b", ONE))
    assert len(planned(view(here, pods=alike)).route.guards) == 1
    assert asked(view(here, pods=alike), "POST")["http"]["allowed"]


def test_who_allows_at_one_of_two_services_at_an_address_allows_nothing_at_the_other() -> None:
    other = replace(SERVICE, namespace="bank", hostname="web.bank.svc")
    attached: dict[str, Any] = {"scope": PolicyScope.SERVICE, "groups": ()}
    here = policy("here", Action.ALLOW, services=(SERVICE.key,), **attached)
    there = policy(
        "there",
        Action.ALLOW,
        rules=(rule(GET),),
        services=(other.key,),
        namespace="bank",
        **attached,
    )
    made = view(here, there)
    assert asked(made, "POST")["http"]["allowed"], "there is but one"
    made.take(Update(services=(other,)))
    for method in ("GET", "POST"):
        assert asked(made, method, service="shop/web")["http"]["allowed"] is False


def test_what_leads_to_nobody_is_not_guarded_by_anybody() -> None:
    made = view(policy(), routes=(Route(match=ALL, action=Redirect(host="x")),))
    assert planned(made).route.guards == ()


def test_rules_of_endpoints_come_after_all_that_filters_do() -> None:
    """A fault before what depends on the client is the waypoint's; before the rest it is not."""
    steps = (Step.RBAC, Step.FAULT)
    fault: Any = {"steps": steps, "abort": Abort(status=503)}
    assert planned(view(policy(), **fault)).place is Place.KERNEL
    rules = (Rbac(action=Action.DENY, policies=(rule(name="q"),)),)
    between = planned(view(policy(), **fault, rbac=rules))
    assert between.reasons == ("rbac: rules before and behind a fault or a rate limit",)
    both = view(policy(), steps=(Step.RBAC,), rbac=rules)
    assert asked(both, "POST")["http"]["meaning"] == "denied by shop/q, rule 0"


def test_a_policy_of_a_service_judges_all_requests_to_it() -> None:
    """Also those that are answered without an endpoint."""
    attached = policy(scope=PolicyScope.SERVICE, services=(SERVICE.key,), groups=())
    made = view(attached, routes=(Route(match=ALL, action=Redirect(host="x")),))
    answer = asked(made, "POST")
    assert (answer["allowed"], answer["http"]["meaning"]) == (False, "denied by shop/p, rule 0")
    assert asked(made)["allowed"]
    assert planned(view(attached, address=None)).reasons == (
        "authorization policy shop/p: its service is one of many on this port",
    )
    other = replace(attached, services=("shop/other",))
    assert asked(view(other), "POST")["allowed"]


def test_istiods_policy_is_completed_by_its_object() -> None:
    told = policy(rules=None)
    made = completed(told, policy(groups=()))
    assert (made.rules, made.groups) == (policy().rules, told.groups)
    # On the way from one version to the next the two differ: nothing is guessed.
    assert completed(told, policy(action=Action.ALLOW)) == told
