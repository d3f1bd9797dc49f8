# SPDX-License-Identifier: Apache-2.0
"""What of Istiod's resources is changed before the node's Envoy gets them; all else goes through as bytes.

1. Inbound listeners, and the one that takes what iptables redirected, stay away: the gate's connections
   come by a listener of our own, and nothing here is addressed to the node.
2. `bind_to_port` becomes false: a listener is found by the address that a connection was for, and
   opens no port of the node's.
3. Filters that exist in Istio's build of Envoy alone and do nothing for a request (telemetry, the peer's
   metadata, ALPN of TLS) are left out where the Envoy at hand has not got them. It tells what it has
   in its first request. Any other filter that it lacks is for it to refuse.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from runtime.source.envoy.messages import CLUSTER, LISTENER, read, type_name, unpack

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TYPED_STRUCTS = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
_INBOUND = 1

# What Istio's own filters are configured with. None of them changes where a request goes, or what is in it for the application.
OBSERVERS = frozenset(
    {
        "io.istio.http.peer_metadata.Config",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "stats.PluginConfig",
    }
)


def adapt(kind: str, payload: bytes, *, has: Collection[str]) -> bytes | None:
    """A resource as the node's Envoy is to have it.

    Args:
        kind: the full name of its message.
        payload: the message, as Istiod sent it.
        has: the names of all messages that this Envoy can be configured with.

    Returns:
        the very same bytes where nothing is to be changed; None where it is not for this Envoy.

    Raises:
        BadResourceError: it cannot be read.
    """
    if kind == LISTENER:
        return _listener(payload, has)
    if kind == CLUSTER:
        wire = read(CLUSTER, payload)
        return wire.SerializeToString() if _drop(wire.filters, has) else payload
    return payload


def _listener(payload: bytes, has: Collection[str]) -> bytes | None:
    wire = read(LISTENER, payload)
    if wire.traffic_direction == _INBOUND or wire.use_original_dst.value:
        return None
    changed = False
    if wire.address.HasField("socket_address"):
        changed = wire.bind_to_port.value or not wire.HasField("bind_to_port")
        wire.bind_to_port.value = False
    default = [wire.default_filter_chain] if wire.HasField("default_filter_chain") else []
    for chain in (*wire.filter_chains, *default):
        changed |= _drop(chain.filters, has)
        for each in chain.filters:
            changed |= _manager(each, has)
    return wire.SerializeToString() if changed else payload


def _manager(wire: Any, has: Collection[str]) -> bool:
    if type_name(wire.typed_config) != _MANAGER:
        return False
    manager = unpack(wire.typed_config)
    if not _drop(manager.http_filters, has):
        return False
    wire.typed_config.value = manager.SerializeToString()
    return True


def _drop(filters: Any, has: Collection[str]) -> bool:
    """Take out observers that this Envoy has not got; whether there were any."""
    kept = [each for each in filters if not _is_lacking(each.typed_config, has)]
    if len(kept) == len(filters):
        return False
    copies = [type(each).FromString(each.SerializeToString()) for each in kept]
    del filters[:]
    filters.extend(copies)
    return True


def _is_lacking(config: Any, has: Collection[str]) -> bool:
    kind = type_name(config)
    if kind in _TYPED_STRUCTS:
        kind = type_name(unpack(config))
    return kind in OBSERVERS and kind not in has
