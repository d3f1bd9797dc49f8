# SPDX-License-Identifier: Apache-2.0
"""How endpoints are spoken to: in plaintext, or in a way that is the waypoint's (TLS, tunnels)."""

from __future__ import annotations

from typing import Any

from runtime.model.http import Transport
from runtime.source.envoy.messages import type_name
from runtime.source.envoy.whitelist import Fields

_PLAIN = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"


def decode_transports(wires: Any) -> tuple[Transport, ...]:
    """`transport_socket_matches`: the first that fits an endpoint's labels is taken."""
    return tuple(_transport(wire) for wire in wires)


def _transport(wire: Any) -> Transport:
    socket = wire.transport_socket
    plain = type_name(socket.typed_config) == _PLAIN
    labels = []
    for key in sorted(wire.match.fields):
        value = wire.match.fields[key]
        labels.append((key, value.string_value))
        # What cannot be compared here must not make a plaintext endpoint out of another.
        plain &= value.WhichOneof("kind") == "string_value"
    return Transport(name=wire.name, labels=tuple(labels), plaintext=plain)


def transport_beyond(socket: Any) -> list[str]:
    """`transport_socket`: what of it is not plaintext."""
    if socket is None:
        return []
    fields = Fields(socket, "transport_socket.")
    config = fields.take("typed_config")
    fields.ignore("name")
    told = fields.rest()
    if type_name(config) != _PLAIN if config is not None else socket.name:
        what = type_name(config).rpartition(".")[2] if config is not None else socket.name
        told.append(f"transport_socket: {what}")
    return told
