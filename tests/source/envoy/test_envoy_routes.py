# SPDX-License-Identifier: Apache-2.0
"""Routes: what is expressed exactly, and that nothing which is set goes by in silence."""

from __future__ import annotations

import re

import pytest

from runtime.model.http import (
    Abort,
    Forward,
    HashKind,
    HashPolicy,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    RateLimit,
    Redirect,
    TextKind,
    TextMatch,
    WeightedCluster,
)
from runtime.source.envoy.fault import NEVER
from runtime.source.envoy.messages import ROUTES, message_class
from runtime.source.istiod.wire import BadResourceError
from tests.source.envoy.wire import TO_C, packed, route, table

FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
LIMIT = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
CORS = "envoy.extensions.filters.http.cors.v3.CorsPolicy"
CONFIG = "envoy.config.route.v3.FilterConfig"
GET = "allow_methods: 'GET'"
FLAKY = "retry_on: '5xx' num_retries { value: 3 }"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('path: "/a"', PathMatch(PathKind.EXACT, "/a")),
        ('prefix: "/a"', PathMatch(PathKind.PREFIX, "/a")),
        ('prefix: "/a" case_sensitive {}', PathMatch(PathKind.PREFIX, "/a", ignore_case=True)),
        ('path_separated_prefix: "/a"', PathMatch(PathKind.SEPARATED_PREFIX, "/a")),
        ('safe_regex { regex: "/a.*" }', PathMatch(PathKind.REGEX, "/a.*")),
        ('safe_regex { google_re2 {} regex: "/a" }', PathMatch(PathKind.REGEX, "/a")),
    ],
)
def test_paths(text, path):
    made = route(match=text)
    assert made.match.path == path
    assert made.beyond == ()


EXACT_B = TextMatch(TextKind.EXACT, "b")
PRESENT = TextMatch(TextKind.PRESENT)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("string_match { exact: 'b' }", HeaderMatch("x-a", EXACT_B)),
        ("string_match { exact: '' }", HeaderMatch("x-a", TextMatch(TextKind.EXACT, ""))),
        (
            "string_match { suffix: 'b' ignore_case: true }",
            HeaderMatch("x-a", TextMatch(TextKind.SUFFIX, "b", ignore_case=True)),
        ),
        (
            "string_match { contains: 'b' } invert_match: true",
            HeaderMatch("x-a", TextMatch(TextKind.CONTAINS, "b"), invert=True),
        ),
        (
            "string_match { safe_regex { regex: 'b+' } } treat_missing_header_as_empty: true",
            HeaderMatch("x-a", TextMatch(TextKind.REGEX, "b+"), missing_as_empty=True),
        ),
        ("present_match: true", HeaderMatch("x-a", PRESENT)),
        ("present_match: false", HeaderMatch("x-a", PRESENT, invert=True)),
        ("present_match: false invert_match: true", HeaderMatch("x-a", PRESENT)),
        ("", HeaderMatch("x-a", PRESENT)),
        ("exact_match: 'b'", HeaderMatch("x-a", EXACT_B)),
        ("exact_match: ''", HeaderMatch("x-a", PRESENT)),
        ("safe_regex_match { regex: 'b' }", HeaderMatch("x-a", TextMatch(TextKind.REGEX, "b"))),
    ],
)
def test_headers(text, header):
    made = route(match=f"prefix: '/' headers {{ name: 'X-A' {text} }}")
    assert made.match.headers == (header,)
    assert made.beyond == ()


def test_host_is_the_authority():
    (header,) = route(
        match="prefix: '/' headers { name: 'Host' present_match: true }"
    ).match.headers
    assert header.name == ":authority"


def test_query_parameters():
    made = route(
        match="prefix: '/' query_parameters { name: 'q' string_match { exact: 'b' } }"
        " query_parameters { name: 'r' present_match: true }"
    )
    assert made.match.query == (QueryMatch("q", EXACT_B), QueryMatch("r", PRESENT))
    assert made.beyond == ()


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ("prefix: '/' headers { name: 'a' range_match { start: 1 end: 5 } }", "range_match"),
        ("prefix: '/' headers { name: 'a' string_match { custom { name: 'x' } } }", "custom"),
        ("prefix: '/' headers { name: 'a' string_match {} }", "no way to match"),
        ("prefix: '/' query_parameters { name: 'a' present_match: false }", "present_match"),
        ("prefix: '/' runtime_fraction { default_value { numerator: 5 } }", "runtime_fraction"),
        ("prefix: '/' grpc {}", "grpc"),
        ("prefix: '/' tls_context { presented { value: true } }", "tls_context"),
        ("prefix: '/' dynamic_metadata { filter: 'f' }", "dynamic_metadata"),
        ("path_match_policy { name: 'template' }", "path_match_policy"),
        ("connect_matcher {}", "connect_matcher"),
    ],
)
def test_a_condition_that_cannot_be_expressed_is_left_out_and_told(match, told):
    made = route(match=match)
    assert any(told in each for each in made.beyond)
    assert made.match.query == ()
    # What is left takes at least what the whole would: no condition has become a narrower one.
    assert made.match.path in {PathMatch(PathKind.PREFIX, "/"), PathMatch(PathKind.PREFIX, "")}
    assert not [each for each in made.match.headers if each.name == "a"]


def test_connect_and_grpc_routes_do_not_take_everything_else():
    (connect,) = route(match="connect_matcher {}").match.headers
    assert connect == HeaderMatch(":method", TextMatch(TextKind.EXACT, "CONNECT"))
    (grpc,) = route(match="prefix: '/' grpc {}").match.headers
    assert grpc == HeaderMatch("content-type", TextMatch(TextKind.PREFIX, "application/grpc"))


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("timeout { seconds: 3 }", "timeout: 3 s"),
        ("timeout {} idle_timeout { seconds: 3 }", "idle_timeout: 3 s"),
        ("timeout {} max_stream_duration { max_stream_duration { seconds: 3 } }", "max_stream"),
        ("timeout {} prefix_rewrite: '/b'", "prefix_rewrite: /b"),
        ("timeout {} regex_rewrite { substitution: 'x' }", "regex_rewrite"),
        ("timeout {} host_rewrite_literal: 'h'", "host_rewrite_literal: h"),
        ("timeout {} auto_host_rewrite { value: true }", "auto_host_rewrite"),
        ("timeout {} priority: HIGH", "priority"),
        ("timeout {} cors {}", "cors"),
        ("timeout {} metadata_match {}", "metadata_match"),
        ("timeout {} request_mirror_policies { cluster: 'm' }", "request_mirror_policies: m"),
        ("timeout {} upgrade_configs { upgrade_type: 'CONNECT' }", "upgrade_configs"),
        ("timeout {} internal_redirect_policy {}", "internal_redirect_policy"),
        ("timeout {} hedge_policy {}", "hedge_policy"),
        ("timeout {} early_data_policy { name: 'e' }", "early_data_policy"),
        ("", "timeout: not set"),
    ],
)
def test_what_a_route_asks_beyond_forwarding_is_told(action, told):
    made = route(f"route {{ cluster: 'c' {action} }}")
    assert [each for each in made.beyond if each.startswith(told)], made.beyond


@pytest.mark.parametrize("where", ["text", "host", "more"])
@pytest.mark.parametrize(
    "field",
    [
        "request_headers_to_add { header { key: 'x-a' value: 'b' } }",
        "request_headers_to_remove: 'x-a'",
        "response_headers_to_add { header { key: 'x-a' value: 'b' } }",
        "response_headers_to_remove: 'x-a'",
    ],
)
def test_changes_of_headers_are_told_wherever_they_stand(where, field):
    at = {"text": f"{TO_C} {field}"} if where == "text" else {where: field}
    (told,) = route(**at).beyond
    assert told == f"{field.split(' ', maxsplit=1)[0].rstrip(':')}: x-a"


@pytest.mark.parametrize(
    "text",
    [
        f"host: retry_policy {{ {FLAKY} }}",
        "host: require_tls: ALL",
        "host: request_mirror_policies { cluster: 'm' }",
        "host: rate_limits {}",
        "more: vhds {}",
        "more: internal_only_headers: 'x'",
        "more: ignore_path_parameters_in_path_matching: true",
        "more: request_mirror_policies { cluster: 'm' }",
    ],
)
def test_what_holds_for_all_routes_is_told_with_each(text):
    where, _, fields = text.partition(": ")
    assert route(**{where: fields}).beyond


def test_a_tree_of_matchers_is_a_route_that_takes_everything():
    made = table("virtual_hosts { name: 'h' domains: '*' matcher {} }").virtual_hosts[0].routes
    assert made[-1].beyond
    assert made[-1].match.path == PathMatch(PathKind.PREFIX, "")


ISTIO = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


@pytest.mark.parametrize(
    ("policy", "beyond"),
    [
        (f"retry_on: '{ISTIO}' num_retries {{ value: 2 }}", ()),
        (
            f"retry_on: '{ISTIO}' num_retries {{ value: 2 }} host_selection_retry_max_attempts: 5",
            (),
        ),
        (FLAKY, ("retry_policy: 3 attempts on 5xx",)),
        ("retry_on: '5xx' num_retries {}", ()),
        ("", ()),
        (
            f"retry_on: '{ISTIO}' num_retries {{ value: 2 }} retriable_status_codes: 503",
            (f"retry_policy: 2 attempts on {ISTIO}", "retry_policy.retriable_status_codes: 503"),
        ),
        (
            f"retry_on: '{ISTIO}' num_retries {{ value: 5 }}",
            (f"retry_policy: 5 attempts on {ISTIO}",),
        ),
        (
            "retry_on: 'connect-failure' num_retries { value: 2 } retry_priority { name: 'p' }",
            (
                "retry_policy: 2 attempts on connect-failure",
                'retry_policy.retry_priority: name: "p"',
            ),
        ),
    ],
)
def test_istios_retries_are_met_and_a_users_are_not(policy, beyond):
    assert (
        route(f"route {{ cluster: 'c' timeout {{}} retry_policy {{ {policy} }} }}").beyond == beyond
    )


def test_weights_hashes_and_their_order():
    made = route(
        "route { weighted_clusters { clusters { name: 'a' weight { value: 1 } }"
        " clusters { name: 'b' weight {} } } timeout {}"
        " hash_policy { header { header_name: 'X-A' } terminal: true }"
        " hash_policy { cookie { name: 'k' ttl { seconds: 60 } path: '/p' } }"
        " hash_policy { connection_properties { source_ip: true } }"
        " hash_policy { query_parameter { name: 'q' } } }"
    )
    assert made.beyond == ()
    assert made.action == Forward(
        (WeightedCluster("a", 1), WeightedCluster("b", 0)),
        (
            HashPolicy(kind=HashKind.HEADER, name="x-a", terminal=True),
            HashPolicy(kind=HashKind.COOKIE, name="k", ttl=60.0, cookie_path="/p"),
            HashPolicy(kind=HashKind.SOURCE_IP),
            HashPolicy(kind=HashKind.QUERY, name="q"),
        ),
    )


def test_a_hash_of_a_kind_that_is_not_known_is_told():
    made = route("route { cluster: 'c' timeout {} hash_policy { filter_state { key: 'k' } } }")
    assert "hash_policy.filter_state.key: k" in made.beyond


def test_redirects():
    text = (
        "redirect { https_redirect: true host_redirect: 'h' port_redirect: 8443"
        " prefix_rewrite: '/b' response_code: PERMANENT_REDIRECT strip_query: true }"
    )
    made = route(text)
    assert made.beyond == ()
    assert made.action == Redirect(
        status=308, https=True, host="h", port=8443, prefix="/b", strip_query=True
    )
    assert route("redirect { prefix_rewrite: '' }").action == Redirect(prefix="")
    assert route("redirect { regex_rewrite { substitution: 's' } }").beyond


def fault(text: str) -> str:
    return f"typed_per_filter_config {{ key: 'fault' value {packed(FAULT, text)} }}"


def test_an_abort_by_share_and_header():
    made = route(f"{TO_C} {fault('abort { http_status: 418 percentage { numerator: 7 } }')}")
    assert made.abort == Abort(status=418, numerator=7, denominator=100)
    assert made.tells == {"fault"}
    made = route(
        TO_C
        + fault(
            "abort { http_status: 418 percentage { numerator: 7 denominator: TEN_THOUSAND } }"
            " headers { name: 'a' present_match: true }"
        )
    )
    assert made.abort == Abort(
        status=418, numerator=7, denominator=10_000, headers=(HeaderMatch("a", PRESENT),)
    )
    assert made.beyond == ()


def test_a_routes_own_empty_fault_lifts_the_ports():
    assert route(TO_C + fault("")).abort == NEVER
    assert route(TO_C).abort is None


@pytest.mark.parametrize(
    "text",
    [
        "delay { fixed_delay { seconds: 1 } percentage { numerator: 1 } }",
        "abort { grpc_status: 5 percentage { numerator: 1 } }",
        "abort { header_abort {} percentage { numerator: 1 } }",
        "response_rate_limit { fixed_limit { limit_kbps: 1 } }",
        "max_active_faults { value: 1 }",
        "upstream_cluster: 'x'",
        "downstream_nodes: 'x'",
    ],
)
def test_other_faults_are_beyond(text):
    assert route(TO_C + fault(text)).beyond


def test_a_delay_of_no_request_is_none():
    made = route(TO_C + fault("delay { fixed_delay { seconds: 1 } percentage {} }"))
    assert made.beyond == ()


def limit(text: str) -> str:
    return f"typed_per_filter_config {{ key: 'limit' value {packed(LIMIT, text)} }}"


ON = (
    "filter_enabled { default_value { numerator: 100 } }"
    " filter_enforced { default_value { numerator: 100 } }"
)
BUCKET = (
    "token_bucket { max_tokens: 10 tokens_per_fill { value: 5 } fill_interval { seconds: 60 } }"
)


def test_a_rate_limit():
    made = route(TO_C + limit(f"stat_prefix: 's' {BUCKET} {ON}"))
    assert made.rate_limit == RateLimit(most=10, tokens=5, interval_ms=60_000)
    assert made.beyond == ()


@pytest.mark.parametrize("more", ["descriptors {}", "enable_x_ratelimit_headers: DRAFT_VERSION_03"])
def test_a_rate_limit_that_says_more_is_beyond(more):
    assert route(TO_C + limit(f"{BUCKET} {ON} {more}")).beyond


def test_filters_of_a_route_come_from_its_host_and_table_too_and_the_nearest_decides():
    def abort(status: int) -> str:
        return fault(f"abort {{ http_status: {status} percentage {{ numerator: 100 }} }}")

    made = route(TO_C, host=abort(501), more=abort(502))
    assert made.abort is not None
    assert made.abort.status == 501
    made = route(TO_C + abort(500), host=abort(501), more=abort(502))
    assert made.abort is not None
    assert made.abort.status == 500


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (packed(CORS, GET), "cors.allow_methods: GET"),
        (packed(CONFIG, "disabled: true"), "typed_per_filter_config f: disabled"),
        (
            packed(CONFIG, f"config {packed(CORS, GET)}"),
            "cors.allow_methods: GET",
        ),
        (
            '{ type_url: "type.googleapis.com/acme.Wasm" }',
            "typed_per_filter_config f: acme.Wasm is not known here",
        ),
    ],
)
def test_what_a_route_says_to_other_filters_is_told(value, told):
    made = route(f"{TO_C} typed_per_filter_config {{ key: 'f' value {value} }}")
    assert made.beyond == (told,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("virtual_hosts { name: 'h' }", "no domain"),
        ("virtual_hosts { name: 'h' domains: '' }", "no domain, or an empty"),
        ("virtual_hosts { domains: 'a' } virtual_hosts { domains: 'A' }", "twice"),
        (
            (
                "virtual_hosts { domains: '*' routes { match { prefix: '/' } name: 'r'"
                " route { weighted_clusters { clusters { name: 'a' } } } } }"
            ),
            "route 1 (r): the weights",
        ),
        (
            (
                "virtual_hosts { domains: '*' routes { match { prefix: '/' }"
                " direct_response { status: 7 } } }"
            ),
            "7 is not a status",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(text, why):
    with pytest.raises(BadResourceError, match=re.escape(why)):
        table(text)


def test_a_field_from_the_future_is_told_by_its_number():
    wire = message_class(ROUTES)()
    wire.name = "t"
    host = wire.virtual_hosts.add(name="h", domains=["*"])
    one = host.routes.add()
    one.match.prefix = "/"
    one.route.cluster = "c"
    one.route.timeout.SetInParent()
    one.route.MergeFromString(b"\xf8\x7f\x01")  # field 2047
    from runtime.source.envoy.route import decode_table

    made = decode_table("t", wire).virtual_hosts[0].routes[0]
    assert made.beyond == ("field 2047 of RouteAction, which is not known here",)


def test_a_route_that_was_decoded_before_is_the_same_object_in_the_same_surroundings_alone():
    first, again = route(TO_C), route(TO_C)
    assert again is first
    assert route(TO_C, host="request_headers_to_remove: 'x'").beyond
    assert route(TO_C, more="request_headers_to_remove: 'x'").beyond
    assert route(TO_C, host=f"retry_policy {{ {FLAKY} }}").beyond
    status = fault("abort { http_status: 501 percentage { numerator: 100 } }")
    assert route(TO_C, host=status).abort is not None
    assert route(TO_C) is first
