# SPDX-License-Identifier: Apache-2.0
"""Envoy's `Cluster` to the model's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runtime.model.http import Balancer, Cluster, Endpoints
from runtime.source.envoy.endpoint import decode_endpoints
from runtime.source.envoy.messages import type_name, unpack
from runtime.source.envoy.outlier import decode_breakers, decode_outlier
from runtime.source.envoy.transport import decode_transports, transport_beyond
from runtime.source.envoy.upstream import decode_protocol
from runtime.source.envoy.whitelist import Fields, milliseconds

_STATIC, _EDS, _ORIGINAL = 0, 3, 4
_BALANCERS = {
    0: Balancer.ROUND_ROBIN,
    1: Balancer.LEAST_REQUEST,
    2: Balancer.RING_HASH,
    3: Balancer.RANDOM,
    5: Balancer.MAGLEV,
}
_PEER_METADATA = "envoy.tcp.metadataexchange.config.MetadataExchange"
_TYPED_STRUCTS = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")


def decode_cluster(name: str, wire: Any) -> Cluster:
    """Turn a `Cluster` into the model.

    Args:
        name: its name; Istio's tell the port, the subset and the hostname.
        wire: the message.

    Raises:
        BadResourceError: it cannot be accepted.
    """
    fields = Fields(wire)
    beyond: list[str] = []
    port, subset, hostname = _parts(name)
    own, endpoints_name = _discovery(fields, name, beyond)
    balancer = _balancer(fields, beyond)
    lb = _common(fields, beyond)
    limits = decode_protocol(fields, beyond)
    timeout = fields.take("connect_timeout")
    made = Cluster(
        name=name,
        hostname=hostname,
        namespace=_namespace(fields.take("metadata")) if hostname else "",
        port=port,
        subset=subset,
        endpoints_name=endpoints_name,
        own_endpoints=own,
        connect_timeout_ms=5000 if timeout is None else milliseconds(timeout),
        breakers=decode_breakers(fields.take("circuit_breakers"), beyond),
        outlier=decode_outlier(fields.take("outlier_detection"), beyond),
        transports=decode_transports(fields.take("transport_socket_matches")),
        **balancer,
        **lb,
        **limits,
    )
    beyond += transport_beyond(fields.take("transport_socket"))
    _filters(fields.take("filters"), beyond)
    # Statistics, memory, keep-alive of idle connections, and what only concerns DNS (which is told).
    fields.ignore(
        "name",
        "alt_stat_name",
        "per_connection_buffer_limit_bytes",
        "upstream_connection_options",
        "track_cluster_stats",
        "track_timeout_budgets",
        "wait_for_warm_on_init",
        "ignore_health_on_host_removal",
        "cleanup_interval",
        "preconnect_policy",
        "dns_refresh_rate",
        "dns_jitter",
        "dns_failure_refresh_rate",
        "respect_dns_ttl",
        "dns_lookup_family",
        "typed_dns_resolver_config",
        "original_dst_lb_config",
    )
    beyond += fields.rest()
    return _with_beyond(made, beyond)


def _with_beyond(cluster: Cluster, beyond: list[str]) -> Cluster:
    return replace(cluster, beyond=tuple(dict.fromkeys(beyond)))


def _parts(name: str) -> tuple[int, str, str]:
    """Port, subset and hostname in a name of Istio's (`outbound|9080|v1|reviews.shop.svc...`)."""
    parts = name.split("|")
    if len(parts) != 4 or not parts[1].isdecimal():
        return 0, "", ""
    return int(parts[1]), parts[2], parts[3]


def _namespace(metadata: Any) -> str:
    """Istio tells the services behind a cluster in its metadata."""
    if metadata is None or "istio" not in metadata.filter_metadata:
        return ""
    fields = metadata.filter_metadata["istio"].fields
    if "services" not in fields:
        return ""
    for service in fields["services"].list_value.values:
        return str(service.struct_value.fields["namespace"].string_value)
    return ""


def _discovery(fields: Fields, name: str, beyond: list[str]) -> tuple[Endpoints | None, str]:
    kind = fields.take("type")
    eds, inline = fields.take("eds_cluster_config"), fields.take("load_assignment")
    if kind == _EDS and not fields.has("cluster_type"):
        if eds is None:
            return None, name
        part = Fields(eds, "eds_cluster_config.")
        part.ignore("eds_config")
        endpoints = part.take("service_name") or name
        beyond += part.rest()
        return None, endpoints
    if kind != _STATIC:
        what = (
            "ORIGINAL_DST" if kind == _ORIGINAL else {1: "STRICT_DNS", 2: "LOGICAL_DNS"}.get(kind)
        )
        beyond.append(f"type: {what or kind}")
        return None, ""
    if inline is None:
        return Endpoints(name=name), ""
    return decode_endpoints(name, inline), ""


def _balancer(fields: Fields, beyond: list[str]) -> dict[str, Any]:
    policy = fields.take("lb_policy")
    found: dict[str, Any] = {"balancer": _BALANCERS.get(policy, Balancer.ORIGINAL_DESTINATION)}
    if policy not in _BALANCERS and policy != 6:  # 6: by the cluster's type, which is told
        beyond.append(f"lb_policy: {policy}")
    settings = {
        "least_request_lb_config": (1, {"choice_count": "choices"}),
        "ring_hash_lb_config": (
            2,
            {"minimum_ring_size": "min_ring_size", "maximum_ring_size": "max_ring_size"},
        ),
        "maglev_lb_config": (5, {"table_size": "table_size"}),
        "round_robin_lb_config": (0, {}),
    }
    for name, (of_policy, names) in settings.items():
        config = fields.take(name)
        if config is None or policy != of_policy:
            continue
        part = Fields(config, f"{name}.")
        for theirs, ours in names.items():
            if part.has(theirs):
                found[ours] = part.wrapped(theirs)
        beyond += part.rest()
    return found


def _common(fields: Fields, beyond: list[str]) -> dict[str, Any]:
    config = fields.take("common_lb_config")
    if config is None:
        return {}
    part = Fields(config, "common_lb_config.")
    panic = part.take("healthy_panic_threshold")
    weighted = part.take("locality_weighted_lb_config") is not None
    # Zones are balanced only by a proxy that is told its own cluster, which Istio does not do.
    part.ignore("update_merge_window", "zone_aware_lb_config")
    beyond += part.rest()
    return {
        "panic_percent": 50 if panic is None else round(panic.value),
        "locality_weighted": weighted,
    }


def _filters(wires: Any, beyond: list[str]) -> None:
    for wire in wires:
        kind = type_name(wire.typed_config)
        if kind in _TYPED_STRUCTS:
            kind = type_name(unpack(wire.typed_config))
        if kind != _PEER_METADATA:
            beyond.append(f"filters {wire.name}: {kind or 'nothing'} is not known here")
