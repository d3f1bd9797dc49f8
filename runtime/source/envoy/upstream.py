# SPDX-License-Identifier: Apache-2.0
"""Which HTTP a cluster's endpoints speak, and how long its connections live."""

from __future__ import annotations

from typing import Any

from runtime.source.envoy.messages import unpack
from runtime.source.envoy.whitelist import Fields, milliseconds

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def decode_protocol(fields: Fields, beyond: list[str]) -> dict[str, Any]:
    """The settings of a cluster that concern its upstream connections, as the model's names."""
    found: dict[str, Any] = {}
    limit = fields.wrapped("max_requests_per_connection")
    if limit:
        found["max_requests_per_connection"] = limit
    options = dict(fields.take("typed_extension_protocol_options").items())
    packed = options.pop(_OPTIONS, None)
    beyond += [f"typed_extension_protocol_options: {name}" for name in sorted(options)]
    common = fields.take("common_http_protocol_options")
    _common(common, found, beyond)
    if fields.take("http2_protocol_options") is not None:
        beyond.append("http2_protocol_options: HTTP/2 to the endpoints")
    _http1(fields.take("http_protocol_options"), beyond)
    if packed is not None:
        _options(unpack(packed), found, beyond)
    return found


def _options(message: Any, found: dict[str, Any], beyond: list[str]) -> None:
    where = "HttpProtocolOptions."
    if message is None:
        beyond.append("typed_extension_protocol_options: of a type that is not known here")
        return
    fields = Fields(message, where)
    _common(fields.take("common_http_protocol_options"), found, beyond)
    explicit = fields.take("explicit_http_config")
    if explicit is not None:
        kind = explicit.WhichOneof("protocol_config")
        if kind in ("http2_protocol_options", "http3_protocol_options"):
            beyond.append(f"explicit_http_config.{kind}: HTTP/{kind[4]} to the endpoints")
        else:
            _http1(explicit.http_protocol_options, beyond)
    downstream = fields.take("use_downstream_protocol_config")
    if downstream is not None:
        # Requests of HTTP/1 alone reach the path: the rest of it does not matter.
        _http1(downstream.http_protocol_options, beyond)
    # SNI and its check: where there is TLS, which is told.
    fields.ignore("upstream_http_protocol_options")
    beyond += fields.rest()


def _common(wire: Any, found: dict[str, Any], beyond: list[str]) -> None:
    if wire is None:
        return
    fields = Fields(wire, "common_http_protocol_options.")
    idle = fields.take("idle_timeout")
    if idle is not None:
        found["idle_timeout_ms"] = milliseconds(idle)
    limit = fields.wrapped("max_requests_per_connection")
    if limit:
        found["max_requests_per_connection"] = limit
    beyond += fields.rest()


def _http1(wire: Any, beyond: list[str]) -> None:
    if wire is None:
        return
    fields = Fields(wire, "http_protocol_options.")
    # The path keeps the spelling of headers, and leaves trailers and HTTP/1.0 to the gate.
    fields.ignore("header_key_format", "enable_trailers", "accept_http_10", "allow_absolute_url")
    beyond += fields.rest()
