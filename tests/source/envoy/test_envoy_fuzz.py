# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes come: a thing of the model, or a reason. And no field that is set is lost.

The last is the promise that matters: each field of each message is set in turn, and the result must say
something of it, unless it stands in the list below of those that make no difference.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.control.dump import plain
from runtime.source.envoy.decode import decode
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, message_class
from runtime.source.istiod.wire import BadResourceError
from tests.source.envoy.wire import HCM, payloads
from tests.source.istiod.test_istiod_fuzz import EDITS, edited

KINDS = (CLUSTER, ENDPOINTS, LISTENER, ROUTES)
RECORDED = [(kind, payload) for kind in KINDS for payload in payloads(kind)]
SCALARS = {
    1: st.floats(width=64),
    2: st.floats(width=32),
    3: st.integers(-(2**63), 2**63 - 1),
    4: st.integers(0, 2**64 - 1),
    5: st.integers(-(2**31), 2**31 - 1),
    8: st.booleans(),
    9: st.text(max_size=8),
    12: st.binary(max_size=8),
    13: st.integers(0, 2**32 - 1),
    14: st.integers(-1, 9),
}


def accepts_or_refuses(kind: str, payload: bytes) -> None:
    reason, name, made = "", "", None
    try:
        name, made = decode(kind, payload)
    except BadResourceError as error:
        reason = str(error)
    if made is None:
        assert reason
        assert "\n" not in reason
        return
    assert made.name == name
    assert name
    plain(made)  # nothing of the wire in it


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_arbitrary_bytes(kind, payload):
    accepts_or_refuses(kind, payload)


@given(st.sampled_from(RECORDED), EDITS)
@settings(max_examples=400)
def test_mutated_resources(resource, edits):
    accepts_or_refuses(resource[0], edited(resource[1], edits))


def fill(message: Any, draw: Any, depth: int = 0) -> None:
    """Set some fields of a message, and of those within, to anything."""
    members = [f for f in message.DESCRIPTOR.fields if not _is_map(f)]
    if not members:
        return
    for field in draw(st.lists(st.sampled_from(members), max_size=6 if depth < 3 else 2)):
        value = getattr(message, field.name)
        if field.message_type is None:
            one = draw(SCALARS.get(field.type, st.integers(0, 100)))
            if field.is_repeated:
                value.append(one)
            else:
                setattr(message, field.name, one)
        elif depth < 6:
            inner = value.add() if field.is_repeated else value
            inner.SetInParent()
            fill(inner, draw, depth + 1)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@given(st.sampled_from(KINDS), st.data())
@settings(max_examples=400)
def test_any_message(kind, data):
    message = message_class(kind)()
    fill(message, data.draw)
    setattr(message, "cluster_name" if kind == ENDPOINTS else "name", "x")
    accepts_or_refuses(kind, message.SerializeToString())


def everything_told(value: Any) -> str:
    """All text in a thing of the model."""
    if is_dataclass(value):
        return " ".join(everything_told(getattr(value, each.name)) for each in fields(value))
    if isinstance(value, tuple | frozenset | list):
        return " ".join(sorted(map(everything_told, value)))
    return repr(value)


def set_field(message: Any, field: Any) -> None:
    """Give a field a value that is not its default."""
    value = getattr(message, field.name)
    if _is_map(field):
        entry = field.message_type.fields_by_name["value"]
        key = "k" if field.message_type.fields_by_name["key"].type == 9 else 1
        if entry.message_type is not None:
            value[key].SetInParent()
        else:
            value[key] = "v" if entry.type == 9 else 1
    elif field.message_type is not None:
        inner = value.add() if field.is_repeated else value
        inner.SetInParent()
        set_inner(inner)
    else:
        one = {9: "v", 12: b"v", 8: True, 1: 1.5, 2: 1.5}.get(field.type, 1)
        if field.is_repeated:
            value.append(one)
        else:
            setattr(message, field.name, one)


def set_inner(inner: Any, depth: int = 0) -> None:
    """Something in every field within a message, so that it means something."""
    for field in inner.DESCRIPTOR.fields:
        if field.message_type is None:
            set_field(inner, field)
        elif depth == 0 and not _is_map(field):
            value = getattr(inner, field.name)
            part = value.add() if field.is_repeated else value
            part.SetInParent()
            set_inner(part, depth + 1)


PLACES = {
    "route": (ROUTES, lambda m: m.virtual_hosts[0].routes[0]),
    "forward": (ROUTES, lambda m: m.virtual_hosts[0].routes[0].route),
    "match": (ROUTES, lambda m: m.virtual_hosts[0].routes[0].match),
    "host": (ROUTES, lambda m: m.virtual_hosts[0]),
    "table": (ROUTES, lambda m: m),
    "cluster": (CLUSTER, lambda m: m),
    "endpoints": (ENDPOINTS, lambda m: m),
    "listener": (LISTENER, lambda m: m),
}


def base(kind: str) -> Any:
    message = message_class(kind)()
    if kind == ROUTES:
        message.name = "t"
        host = message.virtual_hosts.add(name="h", domains=["*"])
        one = host.routes.add(name="r")
        one.match.prefix = "/"
        one.route.cluster = "c"
        one.route.timeout.SetInParent()
    elif kind == ENDPOINTS:
        message.cluster_name = "e"
    else:
        message.name = "x"
    if kind == CLUSTER:
        message.type = 3  # EDS
    if kind == LISTENER:
        message.address.socket_address.address = "10.0.0.1"
        message.address.socket_address.port_value = 80
        manager = message_class(HCM)()
        manager.rds.route_config_name = "80"
        config = message.filter_chains.add().filters.add(name="hcm").typed_config
        config.type_url = f"type.googleapis.com/{HCM}"
        config.value = manager.SerializeToString()
    return message


# What makes no difference to the client and the server of a request: read each with a doubting mind.
HARMLESS = {
    "route": "metadata decorator stat_prefix tracing",
    "forward": "max_grpc_timeout grpc_timeout_offset cluster_not_found_response_code",
    "match": "case_sensitive",  # true is its default
    "host": "virtual_clusters metadata include_request_attempt_count",
    "table": "validate_clusters max_direct_response_body_size_bytes metadata"
    " most_specific_header_mutations_wins",
    "cluster": "alt_stat_name per_connection_buffer_limit_bytes upstream_connection_options"
    " track_cluster_stats track_timeout_budgets wait_for_warm_on_init metadata"
    " ignore_health_on_host_removal cleanup_interval preconnect_policy dns_refresh_rate dns_jitter"
    " dns_failure_refresh_rate respect_dns_ttl dns_lookup_family typed_dns_resolver_config"
    " original_dst_lb_config"
    # settings of a balancer that is not chosen, and endpoints of a cluster that gets them elsewhere
    " load_assignment maglev_lb_config least_request_lb_config ring_hash_lb_config",
    "endpoints": "",
    "listener": "stat_prefix listener_filters_timeout continue_on_listener_filters_timeout"
    " traffic_direction bind_to_port deprecated_v1 transparent freebind"
    " socket_options tcp_fast_open_queue_length tcp_backlog_size connection_balance_config"
    " reuse_port enable_reuse_port enable_mptcp access_log metadata drain_type"
    " per_connection_buffer_limit_bytes max_connections_to_accept_per_socket_event"
    " ignore_global_conn_limit bypass_overload_manager"
    # set to one without an address
    " additional_addresses",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_field_that_is_set_makes_a_difference_or_is_known_to_make_none(place):
    kind, find = PLACES[place]
    before = everything_told(decode(kind, base(kind).SerializeToString())[1])
    silent = set()
    for field in find(base(kind)).DESCRIPTOR.fields:
        message = base(kind)
        target = find(message)
        had = target.SerializeToString()
        set_field(target, field)
        if target.SerializeToString() == had:
            continue
        try:
            after = everything_told(decode(kind, message.SerializeToString())[1])
        except BadResourceError:
            continue
        if after == before:
            silent.add(field.name)
    assert silent <= set(HARMLESS[place].split())


def test_every_field_of_the_connection_manager_likewise():
    from runtime.source.envoy.connection import _OBSERVING

    plain_port = decode(LISTENER, base(LISTENER).SerializeToString())[1]
    silent = set()
    for field in message_class(HCM).DESCRIPTOR.fields:
        message, manager = base(LISTENER), message_class(HCM)()
        manager.rds.route_config_name = "80"
        set_field(manager, field)
        message.filter_chains[0].filters[0].typed_config.value = manager.SerializeToString()
        try:
            after = everything_told(decode(LISTENER, message.SerializeToString())[1])
        except BadResourceError:
            continue
        if after == everything_told(plain_port):
            silent.add(field.name)
    # Set to its default, to HTTP/1, and to a filter that is off.
    empty = {"path_with_escaped_slashes_action", "codec_type", "http_filters"}
    assert silent <= {*_OBSERVING, *empty}
