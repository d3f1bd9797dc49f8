# SPDX-License-Identifier: Apache-2.0
"""The addresses of this host's interfaces, asked of rtnetlink (rtnetlink(7), RTM_GETADDR)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

from runtime.errors import KmeshError
from runtime.model.mesh import IPAddress

_NEWADDR, _GETADDR, _ERROR, _DONE = 20, 22, 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_LOOPBACK = 1  # LOOPBACK_IFINDEX, in every network namespace
_UNIVERSE, _SITE = 0, 200  # RT_SCOPE_*: others have a meaning on a link, or on the host, only
_SECONDS = 5


class AddressesError(KmeshError):
    """The kernel does not tell this host's addresses."""


def own_addresses() -> frozenset[IPAddress]:
    """The addresses that interfaces of this network namespace have, loopback left out.

    Raises:
        AddressesError: they cannot be had.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
            link.settimeout(_SECONDS)
            body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            size = _HEADER.size + len(body)
            link.send(_HEADER.pack(size, _GETADDR, _REQUEST_DUMP, 1, 0) + body)
            return frozenset(_read(link))
    except (OSError, struct.error) as error:
        raise AddressesError(f"this host's addresses cannot be listed: {error}") from error


def _read(link: socket.socket) -> Iterator[IPAddress]:
    while True:
        data = link.recv(1 << 17)
        while data:
            length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError(-struct.unpack_from("=i", data, _HEADER.size)[0], "rtnetlink")
            if kind == _NEWADDR:
                yield from _address(data[_HEADER.size : length])
            data = data[_aligned(length) :]


def _address(message: bytes) -> Iterator[IPAddress]:
    _family, _prefix, _flags, scope, index = _ADDRESS.unpack_from(message)
    if index == _LOOPBACK or scope not in (_UNIVERSE, _SITE):
        return
    found, at = {}, _ADDRESS.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        found[kind] = message[at + _ATTRIBUTE.size : at + length]
        at += _aligned(max(length, _ATTRIBUTE.size))
    # Of a link between two ends the first is the other end's (IPv4 has both).
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if raw:
        yield ip_address(raw)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
