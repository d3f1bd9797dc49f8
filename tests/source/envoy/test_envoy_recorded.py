# SPDX-License-Identifier: Apache-2.0
"""What a real Istiod sent for the samples means what the samples say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from runtime.model.http import (
    Abort,
    Balancer,
    DirectResponse,
    Forward,
    HashKind,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Redirect,
    Route,
    Step,
    TextKind,
    TextMatch,
)
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from tests.source.envoy.wire import recorded

REVIEWS = "reviews.bookstore.svc.cluster.local"


def reviews(subset: str) -> str:
    return f"outbound|9080|{subset}|{REVIEWS}"


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    """The routes of reviews:9080, in order."""
    tables = recorded(ROUTES)
    (host,) = [h for h in tables["9080"].virtual_hosts if REVIEWS in h.domains]
    return list(host.routes)


def test_all_that_was_sent_is_there():
    assert recorded(ROUTES).keys() == {"80", "9080", "9090"}
    assert len(recorded(CLUSTER)) == 16
    assert len(recorded(ENDPOINTS)) == 11
    assert len(recorded(LISTENER)) == 9


def test_routes_come_in_the_order_of_the_virtual_service(routes):
    assert [route.name for route in routes] == [
        "testers", "testers", "admin", "old-path", "chaos", "slow", "rewritten", "retried",
        "gray-release",
    ]  # fmt: skip


def test_testers_are_told_by_headers(routes):
    first, second = routes[:2]
    assert first.match.path == PathMatch(PathKind.PREFIX, "/")
    assert first.match.headers == (HeaderMatch("x-user", TextMatch(TextKind.EXACT, "jason")),)
    assert set(second.match.headers) == {
        HeaderMatch("cookie", TextMatch(TextKind.REGEX, ".*session=[0-9a-f]{8}.*")),
        HeaderMatch("x-group", TextMatch(TextKind.PREFIX, "beta-")),
    }
    for route in (first, second):
        assert isinstance(route.action, Forward)
        assert [each.name for each in route.action.clusters] == [reviews("v2")]


def test_admin_is_answered_at_once(routes):
    admin = routes[2]
    assert admin.match.path == PathMatch(PathKind.EXACT, "/admin")
    assert admin.match.headers == (HeaderMatch(":method", TextMatch(TextKind.EXACT, "DELETE")),)
    assert admin.action == DirectResponse(403, b"not here")


def test_the_old_path_is_redirected(routes):
    assert routes[3].match.path == PathMatch(PathKind.PREFIX, "/api/v1/reviews/")
    assert routes[3].action == Redirect(status=301, path="/reviews/")


def test_chaos_is_an_abort_of_everything(routes):
    assert routes[4].abort == Abort(status=503, numerator=1_000_000, denominator=1_000_000)
    assert routes[4].match.headers == (HeaderMatch("x-chaos", TextMatch(TextKind.EXACT, "abort")),)


def test_only_what_the_kernel_cannot_do_is_beyond_and_says_why(routes):
    assert {route.name: route.beyond for route in routes if route.beyond} == {
        "slow": ("fault.delay: 2 s for 100 % of the requests",),
        "rewritten": (
            "prefix_rewrite: /modern/",
            "request_headers_to_add: x-from",
            "request_headers_to_remove: x-secret",
        ),
        "retried": ("timeout: 2 s", "retry_policy: 3 attempts on 5xx,reset, 0.5 s each"),
    }


def test_retried_asks_for_a_regular_expression_and_a_query(routes):
    match = routes[7].match
    assert match.path == PathMatch(PathKind.REGEX, "/reviews/[0-9]+/flaky")
    assert match.query == (QueryMatch("mode", TextMatch(TextKind.EXACT, "retry")),)


def test_gray_release_is_by_weight(routes):
    action = routes[-1].action
    assert isinstance(action, Forward)
    shares = {each.name: each.weight for each in action.clusters}
    assert shares == {reviews("v1"): 80, reviews("v2"): 15, reviews("v3"): 5}


def test_ratings_are_mirrored_below_one_path_and_hashed_by_user():
    table = recorded(ROUTES)["9080"]
    (host,) = [h for h in table.virtual_hosts if h.name.startswith("ratings")]
    mirrored, plain = host.routes
    assert mirrored.beyond == (f"request_mirror_policies: {reviews('v1')}",)
    assert plain.beyond == ()
    assert isinstance(plain.action, Forward)
    (by,) = plain.action.hash_policies
    assert (by.kind, by.name) == (HashKind.HEADER, "x-user")


def test_istios_own_retries_and_timeout_send_nothing_to_the_waypoint():
    tables = recorded(ROUTES).values()
    beyond = [r.beyond for t in tables for h in t.virtual_hosts for r in h.routes if r.beyond]
    # Two ports of reviews with three each, and the mirrored routes of three ports of ratings.
    assert len(beyond) == 2 * 3 + 3
    assert not any(table.beyond for table in tables)
    assert all(table.ignore_port_in_host for table in tables)


def test_a_port_leads_to_its_table():
    listeners = recorded(LISTENER)
    ports = {(p.address, p.port): p for each in listeners.values() for p in each.ports}
    assert {where: port.table for where, port in ports.items()} == {
        (None, 80): "80",
        (None, 9080): "9080",
        (None, 9090): "9090",
    }
    http = ports[None, 9080]
    assert http.beyond == ()
    assert http.normalize_path
    assert http.steps == (Step.FAULT,)
    assert "envoy.filters.http.fault" in http.filters
    assert http.opaque_cluster == "PassthroughCluster"
    assert listeners["0.0.0.0_9080"].tables == ("9080",)


def test_other_listeners_say_why_they_have_no_http():
    passed = {n: each.passed_over for n, each in recorded(LISTENER).items() if not each.ports}
    assert passed.keys() == {
        "10.96.0.1_443",
        "10.244.0.10_5432",
        "240.240.0.7_443",
        "virtualInbound",
        "virtualOutbound",
        "connect_originate",
    }
    assert all(passed.values())
    opaque = {where for each in recorded(LISTENER).values() for where in each.opaque}
    assert {(str(address), port) for address, port in opaque} == {
        ("10.96.0.1", 443),
        ("10.244.0.10", 5432),
        ("240.240.0.7", 443),
    }


def test_clusters_say_what_the_destination_rule_says():
    clusters = recorded(CLUSTER)
    v1, v3 = clusters[reviews("v1")], clusters[reviews("v3")]
    assert (v1.service, v1.port, v1.subset) == (f"bookstore/{REVIEWS}", 9080, "v1")
    assert (v1.balancer, v3.balancer) == (Balancer.LEAST_REQUEST, Balancer.ROUND_ROBIN)
    assert v1.breakers.max_connections == 100
    assert v1.breakers.max_pending_requests == 10
    assert v1.breakers.max_requests is None
    assert v1.max_requests_per_connection == 100
    assert v1.outlier is not None
    assert (v1.outlier.consecutive_5xx, v1.outlier.interval_ms) == (5, 10_000)
    assert v1.outlier.base_ejection_ms == 30_000
    assert v1.beyond == ()
    ratings = clusters["outbound|9080||ratings.bookstore.svc.cluster.local"]
    assert ratings.balancer is Balancer.RING_HASH


def test_grpc_and_passthrough_are_beyond():
    beyond = {name: each.beyond for name, each in recorded(CLUSTER).items() if each.beyond}
    assert beyond["outbound|9090||ratings.bookstore.svc.cluster.local"] == (
        "explicit_http_config.http2_protocol_options: HTTP/2 to the endpoints",
    )
    assert beyond["PassthroughCluster"] == ("type: ORIGINAL_DST",)
    assert not [name for name in beyond if "reviews" in name or "|9080|" in name]


def test_plaintext_is_for_endpoints_that_do_not_ask_for_another_transport():
    plain = {t.name: t.plaintext for t in recorded(CLUSTER)[reviews("v1")].transports}
    assert plain == {"hbone": False, "tlsMode-istio": False, "tlsMode-disabled": True}


def test_endpoints_of_a_subset_are_its_own():
    v1 = recorded(ENDPOINTS)[reviews("v1")]
    all_of_it = recorded(ENDPOINTS)[reviews("")]
    assert len(v1.endpoints) == 1
    assert len(all_of_it.endpoints) == 3
    assert v1.endpoints[0].address in {each.address for each in all_of_it.endpoints}
    assert all(each.port == 8080 and each.healthy for each in all_of_it.endpoints)
    assert ip_address("10.244.0.5") in {each.address for each in all_of_it.endpoints}
    partner = recorded(ENDPOINTS)["outbound|80||partner.example.com"]
    assert {str(each.address) for each in partner.endpoints} == {"203.0.113.7", "203.0.113.8"}
