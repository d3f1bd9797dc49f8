# SPDX-License-Identifier: Apache-2.0
"""Envoy's `Listener` to the model's: addresses and ports that speak HTTP, and their route tables.

Istio makes a listener for each port of services (`0.0.0.0_9080`) or for one address
(`10.96.0.1_443`). Within it, a filter chain for plaintext HTTP holds the connection manager; the default one
takes what is not HTTP. Inbound listeners are about this node's own pod and not looked into.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.model.http import HttpPort, Listener
from runtime.model.mesh import IPAddress
from runtime.source.envoy.address import socket_address
from runtime.source.envoy.connection import Manager, decode_manager
from runtime.source.envoy.messages import type_name, unpack
from runtime.source.envoy.transport import transport_beyond
from runtime.source.envoy.whitelist import Fields

_NETWORK = "envoy.extensions.filters.network."
_MANAGER = _NETWORK + "http_connection_manager.v3.HttpConnectionManager"
_TCP_PROXY = _NETWORK + "tcp_proxy.v3.TcpProxy"
_INSPECTORS = frozenset(
    f"envoy.extensions.filters.listener.{name}"
    for name in (
        "http_inspector.v3.HttpInspector",
        "tls_inspector.v3.TlsInspector",
        "original_dst.v3.OriginalDst",
    )
)
_INBOUND = 1
_PLAIN = ("", "raw_buffer")
_HTTP1 = frozenset({"http/1.0", "http/1.1"})


def decode_listener(name: str, wire: Any) -> Listener:
    """Turn a `Listener` into the model.

    Raises:
        BadResourceError: it cannot be accepted.
    """
    why = _passed_over(wire)
    if why:
        return Listener(name=name, passed_over=why)
    fields = Fields(wire)
    addresses = list(_addresses(fields))
    beyond: list[str] = []
    _listener_filters(fields.take("listener_filters"), beyond)
    chains = fields.take("filter_chains")
    default = fields.take("default_filter_chain")
    # Of the sockets that a proxy listens on, where the path has none; and its logs.
    fields.ignore(
        "name",
        "stat_prefix",
        "listener_filters_timeout",
        "continue_on_listener_filters_timeout",
        "traffic_direction",
        "bind_to_port",
        "deprecated_v1",
        "use_original_dst",
        "transparent",
        "freebind",
        "socket_options",
        "tcp_fast_open_queue_length",
        "tcp_backlog_size",
        "connection_balance_config",
        "reuse_port",
        "enable_reuse_port",
        "enable_mptcp",
        "access_log",
        "metadata",
        "drain_type",
        "per_connection_buffer_limit_bytes",
        "max_connections_to_accept_per_socket_event",
        "ignore_global_conn_limit",
        "bypass_overload_manager",
    )
    beyond += fields.rest()
    return _listener(name, addresses, [*chains, *([default] if default else [])], beyond)


def _passed_over(wire: Any) -> str:
    if wire.traffic_direction == _INBOUND:
        return "inbound: about this node's own pod"
    if wire.use_original_dst.value:
        return "hands connections on to other listeners"
    if wire.address.WhichOneof("address") != "socket_address":
        return "has no address on the network"
    return ""


def _addresses(fields: Fields) -> Iterator[tuple[IPAddress, int]]:
    wires = [fields.take("address")]
    wires += [each.address for each in fields.take("additional_addresses")]
    for wire in wires:
        if wire.WhichOneof("address") == "socket_address":
            yield socket_address(wire.socket_address, where="address")


def _listener_filters(wires: Any, beyond: list[str]) -> None:
    for wire in wires:
        kind = type_name(wire.typed_config)
        if kind not in _INSPECTORS:
            beyond.append(f"listener_filters {wire.name}: {kind or 'nothing'} is not known here")


def _listener(
    name: str, addresses: list[tuple[IPAddress, int]], chains: list[Any], beyond: list[str]
) -> Listener:
    managers: list[Manager] = []
    opaque: list[str] = []
    for number, chain in enumerate(chains):
        manager = _chain(chain, f"{name}/{number}", beyond)
        if manager is not None:
            managers.append(manager)
        else:
            opaque.append(_tcp_cluster(chain))
    if not managers:
        why = "no HTTP: its connections are not looked into"
        where = tuple((None if a.is_unspecified else a, port) for a, port in addresses)
        return Listener(name=name, passed_over=why, opaque=where)
    if len(managers) > 1:
        beyond.append(f"filter_chains: {len(managers)} of them speak HTTP")
    ports = [_port(name, where, managers[0], opaque, beyond) for where in addresses]
    return Listener(
        name=name,
        ports=tuple(ports),
        tables=tuple(dict.fromkeys(m.table for m in managers if m.table and not m.own_table)),
        own_tables=tuple(m.own_table for m in managers if m.own_table),
    )


def _port(
    name: str,
    where: tuple[IPAddress, int],
    manager: Manager,
    opaque: list[str],
    beyond: list[str],
) -> HttpPort:
    address, port = where
    effects = manager.effects
    return HttpPort(
        listener=name,
        address=None if address.is_unspecified else address,
        port=port,
        table=manager.table,
        rbac=tuple(effects.rbac or ()),
        abort=effects.abort,
        rate_limit=effects.rate_limit,
        opaque_cluster=opaque[-1] if opaque else None,
        normalize_path=manager.normalize_path,
        merge_slashes=manager.merge_slashes,
        escaped_slashes=manager.escaped_slashes,
        steps=tuple(effects.steps),
        filters=frozenset(effects.names),
        beyond=tuple(dict.fromkeys((*beyond, *manager.beyond))),
    )


def _chain(chain: Any, name: str, beyond: list[str]) -> Manager | None:
    """The connection manager of a filter chain for plaintext HTTP; None of any other chain."""
    wires = [f for f in chain.filters if type_name(f.typed_config) == _MANAGER]
    match = chain.filter_chain_match
    if not wires or match.transport_protocol not in _PLAIN or match.server_names:
        return None
    fields = Fields(chain, "filter_chains.")
    fields.ignore("filters", "name", "metadata", "transport_socket_connect_timeout")
    criteria = Fields(fields.take("filter_chain_match") or match, "filter_chain_match.")
    protocols = criteria.take("application_protocols")
    criteria.ignore("transport_protocol")
    if protocols and not _HTTP1 & set(protocols):
        return None  # HTTP/2 alone
    beyond += criteria.rest()
    beyond += transport_beyond(fields.take("transport_socket"))
    others = [f.name for f in chain.filters if type_name(f.typed_config) != _MANAGER]
    beyond += [f"filters {other}: before HTTP is read" for other in others]
    beyond += fields.rest()
    return decode_manager(unpack(wires[0].typed_config), name=name)


def _tcp_cluster(chain: Any) -> str:
    """Where a chain that is not about HTTP sends connections; "" where there is no telling."""
    for each in chain.filters:
        if type_name(each.typed_config) == _TCP_PROXY:
            return str(unpack(each.typed_config).cluster)
    return ""
