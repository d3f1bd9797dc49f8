# SPDX-License-Identifier: Apache-2.0
"""Envoy's addresses."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any

from runtime.model.mesh import IPAddress
from runtime.source.istiod.wire import BadResourceError, port_number


def socket_address(wire: Any, *, where: str, least_port: int = 1) -> tuple[IPAddress, int]:
    """A `SocketAddress` of numbers; an IPv4-mapped one is the IPv4 address that it means.

    Raises:
        BadResourceError: it is a name, or no address.
    """
    try:
        address = ip_address(wire.address)
    except ValueError:
        raise BadResourceError(f"{where}: {wire.address!r} is not an IP address") from None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if wire.WhichOneof("port_specifier") == "named_port":
        raise BadResourceError(f"{where}: named_port {wire.named_port!r} is not a number")
    return address, port_number(wire.port_value, where=where, least=least_port)
