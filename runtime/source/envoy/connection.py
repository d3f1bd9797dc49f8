# SPDX-License-Identifier: Apache-2.0
"""Envoy's `HttpConnectionManager`: which routes, and what is done to each request on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.model.http import EscapedSlashes, RouteTable
from runtime.source.envoy.filters import Effects, decode_filters
from runtime.source.envoy.route import decode_table
from runtime.source.envoy.whitelist import Fields, seconds

# Envoy's default (0) is set by its operator, who leaves it at the first.
_SLASHES = (EscapedSlashes.KEEP_UNCHANGED, *EscapedSlashes)
_HTTP2, _HTTP3 = 2, 3
# Logs, traces, statistics; what a proxy adds to requests and answers, which a path without a proxy has no
# part in; what only concerns protocols and messages that the gate passes to the waypoint.
_OBSERVING = (
    "stat_prefix",
    "access_log",
    "access_log_options",
    "access_log_flush_interval",
    "flush_access_log_on_new_request",
    "request_id_extension",
    "generate_request_id",
    "preserve_external_request_id",
    "always_set_request_id_in_response",
    "use_remote_address",
    "skip_xff_append",
    "xff_num_trusted_hops",
    "internal_address_config",
    "forward_client_cert_details",
    "set_current_client_cert_details",
    "server_name",
    "server_header_transformation",
    "via",
    "append_x_forwarded_port",
    "proxy_status_config",
    "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
    "proxy_100_continue",
    "upgrade_configs",
    "http2_protocol_options",
    "http3_protocol_options",
    "max_request_headers_kb",
    "stream_error_on_invalid_http_message",
    "drain_timeout",
    "delayed_close_timeout",
    "stream_flush_timeout",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """What a connection manager says; `own_table` is the table that it brings along."""

    table: str
    own_table: RouteTable | None
    effects: Effects
    normalize_path: bool
    merge_slashes: bool
    escaped_slashes: EscapedSlashes
    beyond: tuple[str, ...]


def decode_manager(wire: Any, *, name: str) -> Manager:
    """Turn an `HttpConnectionManager` into what the model's port needs.

    Args:
        wire: the message.
        name: what a table that it brings along is to be called.

    Raises:
        BadResourceError: it cannot be accepted.
    """
    fields = Fields(wire)
    beyond: list[str] = []
    table, own = _table(fields, name, beyond)
    effects = decode_filters(fields.take("http_filters"))
    slashes = fields.take("path_with_escaped_slashes_action")
    if not 0 <= slashes < len(_SLASHES):
        beyond.append(f"path_with_escaped_slashes_action: {slashes}")
        slashes = 0
    codec = fields.take("codec_type")
    if codec in (_HTTP2, _HTTP3):
        beyond.append(f"codec_type: HTTP/{codec} alone")
    _tracing(fields.take("tracing"), beyond)
    _common(fields.take("common_http_protocol_options"), beyond)
    _http1(fields.take("http_protocol_options"), beyond)
    _timeouts(fields, beyond)
    made = {
        "normalize_path": fields.wrapped("normalize_path", default=False),
        "merge_slashes": fields.take("merge_slashes"),
    }
    fields.ignore(*_OBSERVING)
    beyond += fields.rest()
    return Manager(
        table=table,
        own_table=own,
        effects=effects,
        escaped_slashes=_SLASHES[slashes],
        beyond=(*beyond, *effects.beyond),
        **made,
    )


def _table(fields: Fields, name: str, beyond: list[str]) -> tuple[str, RouteTable | None]:
    if fields.has("route_config"):
        wire = fields.take("route_config")
        own = decode_table(f"{name}/{wire.name}" if wire.name else name, wire)
        return own.name, own
    if fields.has("rds"):
        part = Fields(fields.take("rds"), "rds.")
        part.ignore("config_source")
        wanted = part.take("route_config_name")
        beyond += part.rest()
        return wanted, None
    if not fields.has("scoped_routes"):
        beyond.append("route_specifier: there is none")
    return "", None  # scoped ones are told by `rest`


def _tracing(wire: Any, beyond: list[str]) -> None:
    """Sampling without a provider of traces has no effect."""
    if wire is not None and wire.HasField("provider"):
        beyond.append(f"tracing.provider: {wire.provider.name}")


def _common(wire: Any, beyond: list[str]) -> None:
    if wire is None:
        return
    fields = Fields(wire, "common_http_protocol_options.")
    fields.ignore("idle_timeout")  # of connections without a request: closing them later is no harm
    beyond += fields.rest()


def _http1(wire: Any, beyond: list[str]) -> None:
    if wire is None:
        return
    fields = Fields(wire, "http_protocol_options.")
    # The path keeps the spelling of headers, and leaves these kinds of messages to the gate.
    fields.ignore("header_key_format", "enable_trailers", "accept_http_10", "allow_absolute_url")
    fields.ignore("default_host_for_http_10", "override_stream_error_on_invalid_http_message")
    beyond += fields.rest()


def _timeouts(fields: Fields, beyond: list[str]) -> None:
    for name in ("stream_idle_timeout", "request_timeout", "request_headers_timeout"):
        value = fields.take(name)
        if value is not None and seconds(value) != 0:
            beyond.append(f"{name}: {seconds(value):g} s")
