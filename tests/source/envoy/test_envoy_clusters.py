# SPDX-License-Identifier: Apache-2.0
"""Clusters and endpoints: what is expressed exactly, and that the rest is told."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from runtime.model.http import Balancer, CircuitBreakers, OutlierDetection, Transport
from runtime.model.mesh import Locality
from runtime.source.istiod.wire import BadResourceError
from tests.source.envoy.wire import cluster, endpoints, packed

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def options(text: str) -> str:
    return f'typed_extension_protocol_options {{ key: "{OPTIONS}" value {packed(OPTIONS, text)} }}'


def test_istios_names_tell_the_service():
    made = cluster("", name="outbound|80|v1|web.shop.svc.cluster.local")
    assert (made.port, made.subset, made.hostname) == (80, "v1", "web.shop.svc.cluster.local")
    assert cluster("", name="PassthroughCluster").service == ""


def test_envoys_defaults():
    made = cluster("")
    assert made.balancer is Balancer.ROUND_ROBIN
    assert made.breakers == CircuitBreakers(
        max_connections=1024, max_pending_requests=1024, max_requests=1024, max_retries=3
    )
    assert made.outlier is None
    assert made.connect_timeout_ms == 5000
    assert made.endpoints_name == "c"
    assert made.beyond == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lb_policy: RANDOM", {"balancer": Balancer.RANDOM}),
        (
            "lb_policy: LEAST_REQUEST least_request_lb_config { choice_count { value: 4 } }",
            {"balancer": Balancer.LEAST_REQUEST, "choices": 4},
        ),
        (
            (
                "lb_policy: RING_HASH ring_hash_lb_config { minimum_ring_size { value: 7 }"
                " maximum_ring_size { value: 9 } }"
            ),
            {"balancer": Balancer.RING_HASH, "min_ring_size": 7, "max_ring_size": 9},
        ),
        (
            "lb_policy: MAGLEV maglev_lb_config { table_size { value: 13 } }",
            {"balancer": Balancer.MAGLEV, "table_size": 13},
        ),
        ("common_lb_config {}", {"panic_percent": 50}),
        ("common_lb_config { healthy_panic_threshold {} }", {"panic_percent": 0}),
        ("common_lb_config { locality_weighted_lb_config {} }", {"locality_weighted": True}),
        ("eds_cluster_config { service_name: 'e' }", {"endpoints_name": "e"}),
        (
            options("common_http_protocol_options { idle_timeout { seconds: 2 } }"),
            {"idle_timeout_ms": 2000},
        ),
        (
            options(
                "explicit_http_config { http_protocol_options {} }"
                " common_http_protocol_options { max_requests_per_connection { value: 1 } }"
            ),
            {"max_requests_per_connection": 1},
        ),
        (options("use_downstream_protocol_config {}"), {"max_requests_per_connection": None}),
        (
            (
                "circuit_breakers { thresholds { max_connections { value: 4294967295 }"
                " max_requests { value: 8 } } thresholds { priority: HIGH max_requests { value: 1 } } }"
            ),
            {
                "breakers": CircuitBreakers(
                    max_connections=None, max_pending_requests=1024, max_requests=8, max_retries=3
                )
            },
        ),
        (
            (
                "outlier_detection { enforcing_success_rate {} interval { nanos: 1000001 }"
                " consecutive_gateway_failure { value: 2 } enforcing_consecutive_gateway_failure"
                " { value: 100 } enforcing_consecutive_5xx {} max_ejection_percent { value: 100 } }"
            ),
            {
                "outlier": OutlierDetection(
                    consecutive_5xx=0,
                    consecutive_gateway_failures=2,
                    interval_ms=2,
                    max_ejection_percent=100,
                )
            },
        ),
    ],
)
def test_settings(text, expected):
    made = cluster(text)
    assert {name: getattr(made, name) for name in expected} == expected
    assert made.beyond == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("type: STRICT_DNS", "type: STRICT_DNS"),
        ("type: ORIGINAL_DST lb_policy: CLUSTER_PROVIDED", "type: ORIGINAL_DST"),
        ("cluster_type { name: 'x' }", "cluster_type"),
        ("lb_policy: LOAD_BALANCING_POLICY_CONFIG", "lb_policy"),
        ("load_balancing_policy {}", "load_balancing_policy"),
        ("lb_subset_config {}", "lb_subset_config"),
        (
            "lb_policy: LEAST_REQUEST least_request_lb_config { slow_start_config {} }",
            "least_request_lb_config.slow_start_config",
        ),
        ("round_robin_lb_config { slow_start_config {} }", "round_robin_lb_config.slow_start"),
        (
            "lb_policy: RING_HASH ring_hash_lb_config { hash_function: MURMUR_HASH_2 }",
            "ring_hash_lb_config.hash_function",
        ),
        ("health_checks {}", "health_checks"),
        ("circuit_breakers { per_host_thresholds {} }", "circuit_breakers.per_host"),
        ("outlier_detection {}", "outlier_detection.enforcing_success_rate: 100 %"),
        (
            "outlier_detection { enforcing_success_rate {} enforcing_consecutive_5xx { value: 5 } }",
            "outlier_detection.enforcing_consecutive_5xx: 5 %",
        ),
        (
            (
                "outlier_detection { enforcing_success_rate {} enforcing_failure_percentage"
                " { value: 5 } }"
            ),
            "outlier_detection.enforcing_failure_percentage: 5 %",
        ),
        ("transport_socket { name: 'tls' }", "transport_socket: tls"),
        ("http2_protocol_options {}", "http2_protocol_options"),
        (options("auto_config {}"), "HttpProtocolOptions.auto_config"),
        (
            options("explicit_http_config { http2_protocol_options {} }"),
            "explicit_http_config.http2_protocol_options",
        ),
        (options("retry_policy {}"), "HttpProtocolOptions.retry_policy"),
        ("filters { name: 'f' typed_config { type_url: 't/acme.F' } }", "filters f: acme.F"),
        ("upstream_bind_config {}", "upstream_bind_config"),
        ("connection_pool_per_downstream_connection: true", "connection_pool_per_downstream"),
    ],
)
def test_what_a_cluster_asks_beyond_is_told(text, told):
    assert [each for each in cluster(text).beyond if each.startswith(told)], cluster(text).beyond


def test_a_static_cluster_brings_its_endpoints():
    made = cluster(
        "type: STATIC load_assignment { endpoints { lb_endpoints { endpoint { address {"
        " socket_address { address: '10.0.0.1' port_value: 80 } } } } } }"
    )
    assert made.own_endpoints is not None
    assert [str(each.address) for each in made.own_endpoints.endpoints] == ["10.0.0.1"]
    assert made.endpoints_name == ""
    assert made.beyond == ()


def test_transports_in_their_order():
    made = cluster(
        "transport_socket_matches { name: 'a' match { fields { key: 'k' value { string_value: 'v' } } }"
        " transport_socket { name: 'tls' } }"
        " transport_socket_matches { name: 'b' match {} transport_socket { name: 'raw' typed_config {"
        " type_url: 't/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer' } } }"
    )
    assert made.transports == (
        Transport(name="a", labels=(("k", "v"),), plaintext=False),
        Transport(name="b", plaintext=True),
    )


def endpoint(address: str, more: str = "") -> str:
    where = f"socket_address {{ address: '{address}' port_value: 80 }}"
    return f"lb_endpoints {{ endpoint {{ address {{ {where} }} }} {more} }}"


def test_endpoints_with_all_that_they_have():
    made = endpoints(
        "endpoints { locality { region: 'r' zone: 'z' sub_zone: 's' } priority: 1"
        " load_balancing_weight { value: 3 }"
        + endpoint("10.0.0.1", "load_balancing_weight { value: 7 } health_status: UNHEALTHY")
        + endpoint("::ffff:10.0.0.2", "health_status: DRAINING")
        + endpoint(
            "fd00::1",
            "metadata { filter_metadata { key: 'envoy.transport_socket_match' value { fields {"
            " key: 'tlsMode' value { string_value: 'istio' } } } } }",
        )
        + "} policy { overprovisioning_factor { value: 200 } }"
    )
    first, second, third = made.endpoints
    assert first.locality == Locality("r", "z", "s")
    assert (first.weight, first.locality_weight, first.priority) == (7, 3, 1)
    assert [each.healthy for each in made.endpoints] == [False, False, True]
    assert second.address == ip_address("10.0.0.2")
    assert third.labels == (("tlsMode", "istio"),)
    assert made.overprovisioning_percent == 200
    assert made.beyond == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("endpoints { lb_endpoints { endpoint_name: 'x' } }", "lb_endpoints.endpoint_name"),
        (
            "endpoints { lb_endpoints { endpoint { address { envoy_internal_address {} } } } }",
            "endpoint.address: by envoy_internal_address",
        ),
        ("endpoints { lb_endpoints { endpoint { address { pipe {} } } } }", "endpoint.address"),
        (
            "endpoints {" + endpoint("1.1.1.1", "health_status: DEGRADED") + "}",
            "lb_endpoints.health",
        ),
        ("policy { drop_overloads {} }", "policy.drop_overloads"),
        ("named_endpoints { key: 'k' value {} }", "named_endpoints"),
        ("endpoints { leds_cluster_locality_config {} }", "endpoints.leds_cluster"),
    ],
)
def test_what_endpoints_ask_beyond_is_told(text, told):
    assert [each for each in endpoints(text).beyond if each.startswith(told)]


@pytest.mark.parametrize("address", ["example.com", "", "10.0.0.1/8"])
def test_an_endpoint_by_name_is_refused(address):
    with pytest.raises(BadResourceError, match="not an IP address"):
        endpoints("endpoints {" + endpoint(address) + "}")


def test_an_endpoint_of_no_weight_is_refused():
    with pytest.raises(BadResourceError, match="weight 0"):
        endpoints("endpoints {" + endpoint("10.0.0.1", "load_balancing_weight {}") + "}")
