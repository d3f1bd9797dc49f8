# SPDX-License-Identifier: Apache-2.0
"""Listeners: which of their chains speaks HTTP, and what its filters do to a request."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from runtime.model.http import (
    Abort,
    AllOf,
    AnyOf,
    Anything,
    DestinationIn,
    EscapedSlashes,
    HeaderMatch,
    HttpPort,
    Not,
    PathIs,
    PortIn,
    PrincipalIs,
    RateLimit,
    RbacPolicy,
    SourceIn,
    Step,
    TextKind,
    TextMatch,
)
from runtime.model.policy import Action
from tests.source.envoy.wire import HCM, listener, packed

FILTERS = "envoy.extensions.filters.http."
RBAC = FILTERS + "rbac.v3.RBAC"
FAULT = FILTERS + "fault.v3.HTTPFault"
LIMIT = FILTERS + "local_ratelimit.v3.LocalRateLimit"
ROUTER = FILTERS + "router.v3.Router"
TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
RDS = "rds { config_source { ads {} } route_config_name: '80' }"
TLS = "filter_chain_match { transport_protocol: 'tls' }"
HTTP1 = "filter_chain_match { application_protocols: 'http/1.1' }"
ADDRESS = "address { socket_address { address: '0.0.0.0' port_value: 80 } }"


def chain(text: str, *, more: str = "") -> str:
    return f"{{ {more} filters {{ name: 'hcm' typed_config {packed(HCM, text)} }} }}"


def tcp(cluster: str, more: str = "") -> str:
    config = packed(TCP, f"cluster: '{cluster}'")
    return f"{{ {more} filters {{ name: 'tcp' typed_config {config} }} }}"


def port(manager: str = "", *, more: str = "", chain_more: str = "") -> HttpPort:
    """The only port of a listener with one manager."""
    made = listener(f"{ADDRESS} filter_chains {chain(RDS + manager, more=chain_more)} {more}")
    return made.ports[0]


def http_filter(kind: str, text: str = "", *, name: str = "f", more: str = "") -> str:
    return f" http_filters {{ name: '{name}' typed_config {packed(kind, text)} {more} }}"


def test_a_plain_listener():
    made = listener(f"{ADDRESS} filter_chains {chain(RDS)}")
    assert made.tables == ("80",)
    (one,) = made.ports
    assert (one.address, one.port, one.table, one.listener) == (None, 80, "80", "l")
    assert one.opaque_cluster is None
    assert one.beyond == ()


def test_it_may_have_several_addresses():
    more = (
        "additional_addresses { address { socket_address { address: 'fd00::1' port_value: 80 } } }"
    )
    made = listener(
        "address { socket_address { address: '10.0.0.1' port_value: 80 } }"
        f" {more} filter_chains {chain(RDS)}"
    )
    assert [each.address for each in made.ports] == [ip_address("10.0.0.1"), ip_address("fd00::1")]


def test_what_is_not_http_goes_where_the_default_chain_says():
    made = listener(
        f"{ADDRESS} filter_chains {tcp('tls', TLS)}"
        f" filter_chains {chain(RDS, more=HTTP1)}"
        f" default_filter_chain {tcp('else')}"
    )
    assert made.ports[0].opaque_cluster == "else"
    assert made.ports[0].beyond == ()


def test_a_listener_brings_its_own_table():
    table = (
        "route_config { name: 'own' virtual_hosts { domains: '*' routes { match { prefix: '/' }"
        " redirect {} } } }"
    )
    made = listener(f"{ADDRESS} filter_chains {chain(table)}")
    assert made.tables == ()
    assert [each.name for each in made.own_tables] == ["l/0/own"]
    assert made.ports[0].table == "l/0/own"


@pytest.mark.parametrize(
    "text",
    [
        "traffic_direction: INBOUND",
        "use_original_dst { value: true }",
        "address { envoy_internal_address {} }",
        "address { pipe { path: '/x' } }",
    ],
)
def test_listeners_that_are_not_looked_into(text):
    where = "" if "address" in text else ADDRESS
    made = listener(f"{where} filter_chains {chain(RDS)} {text}")
    assert made.ports == ()
    assert made.passed_over


def test_http_within_tls_or_http2_alone_is_not_looked_into():
    for match in ("transport_protocol: 'tls'", "application_protocols: 'h2c'", "server_names: 'a'"):
        made = listener(
            f"{ADDRESS} filter_chains {chain(RDS, more=f'filter_chain_match {{ {match} }}')}"
        )
        assert made.ports == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (" add_user_agent {value: true}", "add_user_agent"),
        (" codec_type: HTTP2", "codec_type: HTTP/2"),
        (" tracing { provider { name: 'zipkin' } }", "tracing.provider: zipkin"),
        (" stream_idle_timeout { seconds: 5 }", "stream_idle_timeout: 5 s"),
        (" request_timeout { seconds: 5 }", "request_timeout: 5 s"),
        (" strip_any_host_port: true", "strip_any_host_port"),
        (" strip_trailing_host_dot: true", "strip_trailing_host_dot"),
        (" local_reply_config {}", "local_reply_config"),
        (" early_header_mutation_extensions { name: 'x' }", "early_header_mutation_extensions"),
        (
            " common_http_protocol_options { headers_with_underscores_action: REJECT_REQUEST }",
            "common_http_protocol_options.headers_with_underscores_action",
        ),
        (" http_filters { name: 'w' typed_config { type_url: 't/acme.Wasm' } }", "http_filters w"),
        (" http_filters { name: 'w' config_discovery {} }", "http_filters w"),
        (http_filter(ROUTER, "strict_check_headers: 'x'"), "router.strict_check_headers"),
        (
            http_filter(FAULT, "delay { fixed_delay { seconds: 1 } percentage { numerator: 5 } }"),
            "fault.delay",
        ),
    ],
)
def test_what_a_manager_asks_beyond_is_told(text, told):
    assert [each for each in port(text).beyond if each.startswith(told)], port(text).beyond


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            "listener_filters { name: 'pp' typed_config { type_url: 't/acme.PP' } }",
            "listener_filters",
        ),
        ("filter_chain_matcher {}", "filter_chain_matcher"),
        ("udp_listener_config {}", "udp_listener_config"),
    ],
)
def test_what_a_listener_asks_beyond_is_told(more, told):
    assert [each for each in port(more=more).beyond if each.startswith(told)]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("filter_chain_match { destination_port { value: 80 } }", "filter_chain_match.destination"),
        ("filter_chain_match { source_ports: 80 }", "filter_chain_match.source_ports"),
        ("transport_socket { name: 'tls' }", "transport_socket: tls"),
        ("use_proxy_proto { value: true }", "filter_chains.use_proxy_proto"),
        ("filters { name: 'first' }", "filters first"),
    ],
)
def test_what_a_chain_asks_beyond_is_told(more, told):
    assert [each for each in port(chain_more=more).beyond if each.startswith(told)]


def test_settings_of_the_path():
    made = port(
        " normalize_path { value: true } merge_slashes: true"
        " path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD"
    )
    assert made.normalize_path
    assert made.merge_slashes
    assert made.escaped_slashes is EscapedSlashes.UNESCAPE_AND_FORWARD
    for action, expected in (
        ("IMPLEMENTATION_SPECIFIC_DEFAULT", EscapedSlashes.KEEP_UNCHANGED),
        ("KEEP_UNCHANGED", EscapedSlashes.KEEP_UNCHANGED),
        ("REJECT_REQUEST", EscapedSlashes.REJECT_REQUEST),
        ("UNESCAPE_AND_REDIRECT", EscapedSlashes.UNESCAPE_AND_REDIRECT),
    ):
        assert port(f" path_with_escaped_slashes_action: {action}").escaped_slashes is expected


ON = (
    "filter_enabled { default_value { numerator: 100 } }"
    " filter_enforced { default_value { numerator: 100 } }"
)


def test_filters_in_their_order():
    made = port(
        http_filter(FAULT, "abort { http_status: 500 percentage { numerator: 5 } }", name="a")
        + http_filter(
            LIMIT, f"token_bucket {{ max_tokens: 1 fill_interval {{ seconds: 1 }} }} {ON}"
        )
        + http_filter(RBAC, "rules { action: DENY }", name="b")
        + http_filter(ROUTER, name="r")
    )
    assert made.steps == (Step.FAULT, Step.RATE_LIMIT, Step.RBAC)
    assert made.filters == {"a", "b", "f", "r"}
    assert made.abort == Abort(status=500, numerator=5)
    assert made.rate_limit == RateLimit(most=1, tokens=1, interval_ms=1000)
    assert made.rbac[0].action is Action.DENY
    assert made.beyond == ()


def test_a_filter_that_is_off_does_nothing():
    made = port(http_filter("envoy.config.cluster.v3.Cluster", more="disabled: true"))
    assert made.beyond == ()
    assert made.filters == frozenset()


def rules(text: str) -> HttpPort:
    return port(http_filter(RBAC, f"rules {{ {text} }}"))


EXACT = TextMatch(TextKind.EXACT, "x")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("any: true", Anything()),
        ("header { name: ':method' string_match { exact: 'x' } }", HeaderMatch(":method", EXACT)),
        ("url_path { path { exact: 'x' } }", PathIs(EXACT)),
        ("destination_port: 80", PortIn(80, 80)),
        ("destination_port_range { start: 80 end: 90 }", PortIn(80, 89)),
        (
            "destination_ip { address_prefix: '10.0.0.1' prefix_len { value: 8 } }",
            DestinationIn(ip_network("10.0.0.0/8")),
        ),
        ("not_rule { any: true }", Not(Anything())),
        (
            "and_rules { rules { any: true } rules { or_rules { rules { any: true } } } }",
            AllOf((Anything(), AnyOf((Anything(),)))),
        ),
    ],
)
def test_permissions(text, condition):
    made = rules(
        f"policies {{ key: 'p' value {{ permissions {{ {text} }} principals {{ any: true }} }} }}"
    )
    assert made.rbac[0].policies == (
        RbacPolicy(name="p", permissions=(condition,), principals=(Anything(),)),
    )
    assert made.beyond == ()


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("authenticated { principal_name { exact: 'x' } }", PrincipalIs(EXACT)),
        (
            "filter_state { key: 'io.istio.peer_principal' string_match { exact: 'x' } }",
            PrincipalIs(EXACT),
        ),
        (
            "direct_remote_ip { address_prefix: '10.0.0.1' prefix_len { value: 32 } }",
            SourceIn(ip_network("10.0.0.1/32")),
        ),
        ("not_id { and_ids { ids { any: true } } }", Not(AllOf((Anything(),)))),
    ],
)
def test_principals(text, condition):
    made = rules(
        f"policies {{ key: 'p' value {{ permissions {{ any: true }} principals {{ {text} }} }} }}"
    )
    assert made.rbac[0].policies[0].principals == (condition,)
    assert made.beyond == ()


@pytest.mark.parametrize(
    "text",
    [
        "permissions { metadata { filter: 'x' } } principals { any: true }",
        "permissions { requested_server_name { exact: 'x' } } principals { any: true }",
        "permissions { matcher { name: 'x' } } principals { any: true }",
        "permissions {} principals { any: true }",
        "permissions { any: true } principals { authenticated {} }",
        "permissions { any: true } principals { filter_state { key: 'x' string_match { exact: 'x' } } }",
        "permissions { any: true } principals { header { name: 'x' range_match {} } }",
        "permissions { any: true } principals { any: true } condition {}",
        "permissions "
        + "{ not_rule " * 30
        + "{ any: true }"
        + "}" * 30
        + " principals { any: true }",
    ],
)
def test_rules_that_cannot_be_expressed_open_no_door(text):
    made = rules(f"policies {{ key: 'p' value {{ {text} }} }}")
    assert made.rbac == ()
    assert made.beyond


def test_shadow_rules_decide_nothing():
    made = port(http_filter(RBAC, "shadow_rules { action: DENY }"))
    assert made.rbac == ()
    assert made.beyond == ()
    assert port(http_filter(RBAC, "matcher {}")).beyond
