# SPDX-License-Identifier: Apache-2.0
"""What `explain` is asked: an address, perhaps with a port and a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from runtime.errors import KmeshError
from runtime.model.mesh import IPAddress

_HINT = "write ADDRESS or ADDRESS:PORT, such as 10.96.0.10:80 or [fd00::10]:80"


@dataclass(frozen=True, slots=True)
class Question:
    """`port` and `protocol` are None where any is meant; IPv4-mapped addresses are IPv4."""

    address: IPAddress
    port: int | None = None
    protocol: str | None = None


def parse_question(text: str, *, protocol: str | None = None) -> Question:
    """Take apart "10.96.0.10:80", "10.96.0.10", "[fd00::1]:80", "fd00::1", "::ffff:10.96.0.10".

    Raises:
        KmeshError: it is none of these, or the protocol is neither tcp nor udp.
    """
    host, port = _split(text.strip())
    try:
        address = ip_address(host)
    except ValueError:
        named = any(letter.isalpha() for letter in host) and ":" not in host
        hint = (
            "names are not resolved here; `kmeshctl services` lists their addresses"
            if named
            else _HINT
        )
        raise KmeshError(f"{text!r} is no IP address", hint=hint) from None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise KmeshError(f"{text!r}: a service has no zone (%{address.scope_id})", hint=_HINT)
        address = address.ipv4_mapped or address
    if protocol and protocol.upper() not in {"TCP", "UDP"}:
        raise KmeshError(f"no protocol {protocol!r}", hint="tcp or udp")
    return Question(address, _port(text, port), protocol.upper() if protocol else None)


def _split(text: str) -> tuple[str, str | None]:
    """Host and port; an IPv6 address without brackets has no port."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            return text, None
        return host, rest[1:] if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def _port(text: str, port: str | None) -> int | None:
    if port is None:
        return None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 0x10000):
        raise KmeshError(f"{text!r}: {port!r} is no port from 1 to 65535", hint=_HINT)
    return int(port)
