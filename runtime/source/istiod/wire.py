# SPDX-License-Identifier: Apache-2.0
"""Pieces that several resource types share: addresses, blocks, ports; and what is wrong with them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from google.protobuf.message import DecodeError

from runtime.model.mesh import IPAddress
from runtime.model.policy import IPNetwork

_TYPE_PREFIX = "type.googleapis.com/"
ADDRESS_TYPE = _TYPE_PREFIX + "istio.workload.Address"
AUTHORIZATION_TYPE = _TYPE_PREFIX + "istio.security.Authorization"

_MAPPED_BITS = 96


class BadResourceError(ValueError):
    """A resource that cannot be accepted; the message is the reason, in one line."""


def parse(message: Any, payload: bytes) -> Any:
    """Parse a message of a generated class.

    Raises:
        BadResourceError: these bytes are not one.
    """
    try:
        return message.FromString(payload)
    except DecodeError as error:
        raise BadResourceError(f"not a message of type {message.DESCRIPTOR.full_name}") from error


def ip_address(raw: bytes, *, where: str) -> IPAddress:
    """An address of 4 or 16 bytes; an IPv4-mapped one is the IPv4 address that it means."""
    if len(raw) == 4:
        return IPv4Address(raw)
    if len(raw) != 16:
        raise BadResourceError(f"{where}: an IP address has 4 or 16 bytes, not {len(raw)}")
    address = IPv6Address(raw)
    return address.ipv4_mapped or address


def ip_block(raw: bytes, length: int, *, where: str) -> IPNetwork:
    """A block of addresses; bits beyond its length are ignored, as in Istio."""
    address = ip_address(raw, where=where)
    bits = 8 * len(raw)
    if length > bits:
        raise BadResourceError(f"{where}: {address}/{length} is longer than {bits} bits")
    if isinstance(address, IPv6Address):
        return IPv6Network((address, length), strict=False)
    if bits == 128:
        if length < _MAPPED_BITS:
            return IPv6Network((raw, length), strict=False)
        length -= _MAPPED_BITS
    return IPv4Network((address, length), strict=False)


def port_number(value: int, *, where: str, least: int = 1) -> int:
    """A port that exists; `least` is 0 where "none" may be said."""
    if not least <= value <= 65535:
        raise BadResourceError(f"{where}: {value} is not a port number")
    return value
