# SPDX-License-Identifier: Apache-2.0
"""Each route has a place, and each that is not in the kernel says why."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.http import (
    Abort,
    AnyOf,
    Anything,
    Balancer,
    CircuitBreakers,
    Condition,
    DirectResponse,
    Forward,
    HashKind,
    HashPolicy,
    HeaderMatch,
    HttpEndpoint,
    Listener,
    OutlierDetection,
    PathKind,
    PathMatch,
    PrincipalIs,
    QueryMatch,
    RateLimit,
    Rbac,
    RbacPolicy,
    Redirect,
    Route,
    RouteMatch,
    SourceIn,
    Step,
    TextKind,
    TextMatch,
    Transport,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange
from runtime.model.mesh import Locality, Workload
from runtime.model.policy import Action, Match, Policy, PolicyScope
from runtime.plan.ability import Ability, Feature, Limits
from runtime.plan.planned import Place, PlannedHost, PlannedRoute, host_for
from runtime.plan.planner import make_plan
from tests.plan.http_model import ANY, HOME, TO_C, bookstore, bookstore_mesh, picture, route

ALL = Ability()
PRESENT = TextMatch(TextKind.PRESENT)


def only(http, ability=ALL, **more) -> PlannedRoute:
    plan = make_plan(http, ability=ability, **more)
    return plan.ports[None, 80].hosts[0].routes[0]


def test_a_plain_route_runs_in_the_kernel():
    planned = only(picture())
    assert planned.place is Place.KERNEL
    assert planned.reasons == ()
    assert planned.match == ANY


@pytest.mark.parametrize(
    ("http", "reason"),
    [
        (picture(route(beyond=("timeout: 2 s",))), "timeout: 2 s"),
        (
            picture(port={"beyond": ("http_filters w: acme.Wasm is not known here",)}),
            "http_filters w",
        ),
        (picture(cluster={"beyond": ("type: ORIGINAL_DST",)}), "cluster c: type: ORIGINAL_DST"),
        (
            picture(cluster={"endpoints_name": "other"}),
            "cluster c: its endpoints have not come yet",
        ),
        (picture(route(action=Forward((WeightedCluster("d"),)))), "cluster d: it is not known"),
        (
            picture(
                cluster={
                    "transports": (
                        Transport(name="mtls", labels=(("tlsMode", "istio"),), plaintext=False),
                        Transport(name="plain"),
                    )
                },
                endpoints=(
                    HOME,
                    HttpEndpoint(
                        address=ip_address("10.0.0.2"), port=80, labels=(("tlsMode", "istio"),)
                    ),
                ),
            ),
            "cluster c: transport_socket_matches mtls: not plaintext",
        ),
        (
            picture(
                route(
                    action=Forward(
                        (WeightedCluster("c"),),
                        (HashPolicy(kind=HashKind.COOKIE, name="k", ttl=0.0),),
                    )
                )
            ),
            "hash_policy.cookie: k is to be made",
        ),
        (
            picture(route(action=DirectResponse(200, b"x" * 5000))),
            "direct_response.body: 5000 bytes",
        ),
    ],
)
def test_what_is_beyond_goes_to_the_waypoint_with_the_reason(http, reason):
    planned = only(http)
    assert planned.place is Place.WAYPOINT
    assert planned.reasons[0].startswith(reason)


def test_a_cluster_of_no_weight_gives_no_reason():
    action = Forward((WeightedCluster("c", 1), WeightedCluster("unknown", 0)))
    assert only(picture(route(action=action))).place is Place.KERNEL


FULL = (Step.FAULT, Step.RATE_LIMIT, Step.RBAC)
LIMIT = RateLimit(most=1, tokens=1, interval_ms=1)
DENY = Rbac(action=Action.DENY)
ANYONE = PrincipalIs(TextMatch(TextKind.PREFIX, "spiffe://"))


def rule(who: Condition) -> Rbac:
    policy = RbacPolicy(name="p", permissions=(Anything(),), principals=(who,))
    return Rbac(action=Action.ALLOW, policies=(policy,))


ASKS = {
    Feature.ABORT: picture(route(abort=Abort(status=500)), port={"steps": FULL}),
    Feature.RATE_LIMIT: picture(port={"steps": FULL, "rate_limit": LIMIT}),
    Feature.RBAC: picture(port={"steps": FULL, "rbac": (DENY,)}),
    Feature.REDIRECT: picture(route(action=Redirect())),
    Feature.DIRECT_RESPONSE: picture(route(action=DirectResponse(200))),
    Feature.HASH: picture(cluster={"balancer": Balancer.RING_HASH}),
    Feature.IDENTITY: picture(port={"steps": FULL, "rbac": (rule(ANYONE),)}),
    Feature.BREAKERS: picture(cluster={"breakers": CircuitBreakers(max_connections=1)}),
    Feature.OUTLIERS: picture(cluster={"outlier": OutlierDetection()}),
    Feature.LOCALITIES: picture(
        cluster={"locality_weighted": True},
        endpoints=(HOME, replace(HOME, locality=Locality(region="elsewhere"))),
    ),
    Feature.PRIORITIES: picture(
        endpoints=(HOME, HttpEndpoint(address=ip_address("10.0.0.2"), port=1, priority=1))
    ),
}


@pytest.mark.parametrize("feature", Feature)
def test_a_feature_that_the_path_lacks_is_the_reason_of_those_that_ask_for_it(feature):
    assert only(ASKS[feature]).place is Place.KERNEL
    without = Ability(lacks={feature: "not on this kernel"})
    planned = only(ASKS[feature], without)
    assert planned.place is Place.WAYPOINT
    assert planned.reasons[0].endswith(f"{feature}: not on this kernel")
    assert only(picture(), without).place is Place.KERNEL


def test_where_a_client_is_can_be_told_also_where_nobody_knows_who_it_is():
    lacks = Ability(lacks={Feature.IDENTITY: "no name"})
    near = SourceIn(ip_network("10.0.0.0/8"))
    found = only(picture(port={"steps": FULL, "rbac": (rule(near),)}), lacks)
    assert (found.place, found.reasons) == (Place.KERNEL, ())
    # That some rule asks for it does not matter where the answer is the same for all.
    everyone = rule(AnyOf((ANYONE, Anything())))
    assert only(picture(port={"steps": FULL, "rbac": (everyone,)}), lacks).place is Place.KERNEL


@pytest.mark.parametrize("step", [Step.FAULT, Step.RATE_LIMIT])
def test_what_comes_before_a_question_to_the_client_is_the_waypoints(step):
    asks = route(abort=Abort(status=500)) if step is Step.FAULT else route(rate_limit=LIMIT)
    rules = {"rbac": (rule(ANYONE),)}
    late = only(picture(asks, port={"steps": (step, Step.RBAC), **rules}))
    assert late.reasons == ("rbac: conditions on the client behind a fault or a rate limit",)
    assert only(picture(asks, port={"steps": (Step.RBAC, step), **rules})).place is Place.KERNEL
    assert only(picture(port={"steps": (step, Step.RBAC), **rules})).place is Place.KERNEL


def test_a_filter_that_the_port_does_not_have_does_nothing():
    lacks = Ability(lacks=dict.fromkeys((Feature.ABORT, Feature.RATE_LIMIT, Feature.RBAC), "no"))
    asks = route(abort=Abort(status=500), rate_limit=LIMIT, rbac=(DENY,))
    assert only(picture(asks), lacks).place is Place.KERNEL
    assert len(only(picture(asks, port={"steps": FULL}), lacks).reasons) == 3


def test_a_routes_own_word_goes_before_its_ports():
    lacks = Ability(lacks=dict.fromkeys((Feature.ABORT, Feature.RBAC), "no"))
    lifted = route(abort=Abort(status=500, numerator=0), rbac=())
    port = {"steps": FULL, "abort": Abort(status=500), "rbac": (DENY,)}
    assert only(picture(lifted, port=port), lacks).place is Place.KERNEL
    assert only(picture(port=port), lacks).place is Place.WAYPOINT


def asking(*names: str) -> Route:
    headers = tuple(HeaderMatch(name, PRESENT) for name in names)
    return route(match=RouteMatch(ANY.path, headers))


def test_names_over_the_limit_are_left_out_of_the_match_and_the_route_is_the_waypoints():
    http = picture(asking("a", "b"), asking("b", ":method"), asking("c", "a"))
    ability = Ability(limits=Limits(names=2))
    first, second, third = make_plan(http, ability=ability).ports[None, 80].hosts[0].routes
    assert (first.place, second.place, third.place) == (
        Place.KERNEL,
        Place.KERNEL,
        Place.WAYPOINT,
    )
    assert third.match.headers == (HeaderMatch("a", PRESENT),)
    assert "more than 2 names" in third.reasons[0]


def test_query_parameters_over_the_limit_likewise():
    match = RouteMatch(ANY.path, (), (QueryMatch("a", PRESENT), QueryMatch("b", PRESENT)))
    planned = only(picture(route(match=match)), Ability(limits=Limits(names=1)))
    assert planned.place is Place.WAYPOINT
    assert planned.match.query == (QueryMatch("a", PRESENT),)


def test_a_match_that_cannot_be_compiled_takes_everything():
    def cannot(match):
        return "match.path: words" if match.path.kind is PathKind.REGEX else ""

    regex = RouteMatch(PathMatch(PathKind.REGEX, r"\bx"), (HeaderMatch("a", PRESENT),))
    planned = only(picture(route(match=regex)), Ability(cannot_match=cannot))
    assert planned.place is Place.WAYPOINT
    assert planned.reasons == ("match.path: words",)
    assert planned.match == RouteMatch(PathMatch(PathKind.PREFIX, ""))


def test_routes_over_the_limit_are_cut_where_the_room_ends():
    hosts = tuple(VirtualHost(str(n), (f"{n}.x",), (route(),) * 3) for n in range(3))
    http = picture(table={"virtual_hosts": hosts})
    planned = make_plan(http, ability=Ability(limits=Limits(routes=5))).ports[None, 80].hosts
    assert [host.cut for host in planned] == [None, 2, 0]
    assert [[r.place for r in host.routes].count(Place.KERNEL) for host in planned] == [3, 2, 0]
    assert planned[1].routes[2].reasons == ("routes: more on this port than fit",)


def test_too_many_virtual_hosts_leave_none_out():
    hosts = tuple(VirtualHost(str(n), (f"{n}.x",), (route(),)) for n in range(3))
    http = picture(table={"virtual_hosts": hosts})
    port = make_plan(http, ability=Ability(limits=Limits(virtual_hosts=2))).ports[None, 80]
    assert len(port.hosts) == 3
    assert all(h.routes[0].place is Place.WAYPOINT for h in port.hosts)
    assert port.missing is Place.WAYPOINT


def test_a_table_that_has_not_come_is_the_waypoints():
    http = picture(port={"table": "other"})
    port = make_plan(http, ability=ALL).ports[None, 80]
    assert port.missing is Place.WAYPOINT
    assert port.reasons == ("route table other: it has not come yet",)


def test_where_the_path_does_not_run_everything_is_the_waypoints_and_what_could_run_is_told():
    ability = Ability(serves=False, why_not="the enhanced path does not run")
    plan = make_plan(picture(), ability=ability)
    planned = plan.ports[None, 80].hosts[0].routes[0]
    assert planned.place is Place.WAYPOINT
    assert planned.reasons == ()
    assert plan.ports[None, 80].missing is Place.WAYPOINT
    assert plan.why_not == "the enhanced path does not run"


HTTP_ONLY = Policy(
    name="p",
    namespace="s",
    scope=PolicyScope.NAMESPACE,
    action=Action.DENY,
    groups=(((Match(),),),),
)
GUARDED = Workload(uid="w", name="w", namespace="s", addresses=(HOME.address,))


@pytest.mark.parametrize(
    ("policy", "namespace", "place"),
    [
        (HTTP_ONLY, "s", Place.WAYPOINT),
        (HTTP_ONLY, "other", Place.KERNEL),
        (
            Policy(
                name="p",
                namespace="s",
                scope=PolicyScope.NAMESPACE,
                groups=(((Match(destination_ports=(1,)),),),),
            ),
            "s",
            Place.KERNEL,
        ),
    ],
)
def test_a_policy_with_conditions_on_http_is_not_passed_by(policy, namespace, place):
    workload = Workload(uid="w", name="w", namespace=namespace, addresses=GUARDED.addresses)
    planned = only(picture(), workloads={"w": workload}, policies={policy.key: policy})
    assert planned.place is place
    assert planned.reasons == (
        (
            "authorization policy s/p: it has conditions on HTTP, which the workload API does not tell",
        )
        if place is Place.WAYPOINT
        else ()
    )


def test_the_recorded_mesh():
    services, workloads = bookstore_mesh()
    plan = make_plan(bookstore(), ability=ALL, workloads=workloads)
    (reviews,) = [each for each in services if each.name == "reviews"]
    port = plan.port_of(reviews.addresses[0], 9080)
    assert port is not None
    host = host_for(port.hosts, reviews.hostname)
    assert host is not None
    places = [(planned.route.name, str(planned.place)) for planned in host.routes]
    assert places == [
        ("testers", "kernel"),
        ("testers", "kernel"),
        ("admin", "kernel"),
        ("old-path", "kernel"),
        ("chaos", "kernel"),
        ("slow", "waypoint"),
        ("rewritten", "waypoint"),
        ("retried", "waypoint"),
        ("gray-release", "kernel"),
    ]
    elsewhere = host_for(port.hosts, "somewhere.example")
    assert elsewhere is not None
    assert elsewhere.routes[0].reasons == ("cluster PassthroughCluster: type: ORIGINAL_DST",)


def test_a_listener_of_its_own_keeps_an_address_from_the_one_for_all():
    http = picture()
    address, other = ip_address("10.96.0.1"), ip_address("10.96.0.2")
    assert make_plan(http, ability=ALL).port_of(address, 80) is not None
    tcp = Listener(name="tcp", passed_over="no HTTP", opaque=((address, 80),))
    http.take(HttpChange(listeners={"tcp": tcp}))
    plan = make_plan(http, ability=ALL)
    assert plan.port_of(address, 80) is None
    assert plan.port_of(other, 80) is not None


def test_the_same_gives_the_same():
    http = bookstore()
    assert make_plan(http, ability=ALL) == make_plan(http.copy(), ability=ALL)


NAMES = st.lists(st.sampled_from("abcdef"), max_size=4)


@given(st.lists(NAMES, min_size=1, max_size=8), st.integers(0, 4))
@settings(deadline=None)  # a busy machine is no failure
def test_a_planned_match_never_asks_for_more_than_the_route_does(asked, most):
    http = picture(*(asking(*names) for names in asked))
    routes = make_plan(http, ability=Ability(limits=Limits(names=most)))
    used = set()
    for planned in routes.ports[None, 80].hosts[0].routes:
        assert set(planned.match.headers) <= set(planned.route.match.headers)
        assert (planned.match == planned.route.match) == (planned.place is Place.KERNEL)
        used |= {header.name for header in planned.match.headers}
    assert len(used) <= most


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example.com", "exact"),
        ("A.Example.COM", "exact"),
        ("b.example.com", "suffix"),
        ("b.other.com", "short suffix"),
        ("a.example.net", "prefix"),
        ("x.y", "any"),
        (".example.com", "short suffix"),
    ],
)
def test_virtual_hosts_are_chosen_as_envoy_does(host, expected):
    domains = {
        "any": "*",
        "prefix": "a.example.*",
        "short suffix": "*.com",
        "suffix": "*.example.com",
        "exact": "a.example.com",
    }
    hosts = tuple(PlannedHost(name=name, domains=(domain,)) for name, domain in domains.items())
    found = host_for(hosts, host)
    assert found is not None
    assert found.name == expected


def test_no_virtual_host_is_none():
    assert host_for((PlannedHost(name="a", domains=("a",)),), "b") is None
    assert TO_C.clusters[0].name == "c"
