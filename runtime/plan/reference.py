# SPDX-License-Identifier: Apache-2.0
"""Which route a request takes, as Envoy chooses it: plainly written, and what the tests compare with.

Sources: Envoy's source/common/router/config_impl.cc (RouteMatcher::findVirtualHost, VirtualHostImpl::
getRouteFromEntries), source/common/http/header_utility.cc (matchHeaders).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.model.http import (
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Route,
    RouteTable,
    TextKind,
    TextMatch,
    VirtualHost,
)
from runtime.tables.http_conditions import PATH_ALONE

# Whether a regular expression of RE2 matches the whole of a text.
FullMatch = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Request:
    """A request head. `headers` are as they were sent, names in any case; Host is `authority`."""

    method: str
    target: str
    authority: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The value of a header, of all its lines joined; None when there is none."""
        pseudo = {
            ":method": self.method,
            ":path": self.target,
            PATH_ALONE: self.path,
            ":authority": self.authority,
            "host": self.authority,
            ":scheme": "http",
        }
        if name in pseudo:
            return pseudo[name]
        values = self._values(name)
        if name in {
            option.strip(" \t")
            for one in self._values("connection")
            for option in one.lower().split(",")
        }:
            return None  # a header of this hop alone
        return ",".join(values) if values else None

    def _values(self, name: str) -> list[str]:
        return [value.strip(" \t") for given, value in self.headers if given.lower() == name]

    def parameter(self, name: str) -> str | None:
        """The first query parameter of that name, as it stands in the URL."""
        for part in self.target.partition("?")[2].split("&"):
            key, _, value = part.partition("=")
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Choice:
    """A virtual host and one of its routes, by their indices; None where there is none."""

    host: int | None = None
    route: int | None = None


def choose(table: RouteTable, request: Request, *, full_match: FullMatch) -> Choice:
    """The route that a request takes.

    Args:
        table: the routes.
        request: as the client sent it.
        full_match: decides regular expressions; RE2 in the tests.
    """
    host = request.authority.lower()
    if table.ignore_port_in_host:
        host = _without_port(host)
    index = find_host(table.virtual_hosts, host)
    if index is None:
        return Choice()
    for number, route in enumerate(table.virtual_hosts[index].routes):
        if matches(route, request, full_match=full_match):
            return Choice(index, number)
    return Choice(index)


def _without_port(host: str) -> str:
    end = host.rfind(":")
    if end < 0 or not host[end + 1 :].isdigit() or host.rfind("]") > end:
        return host
    return host[:end]


def find_host(hosts: Sequence[VirtualHost], host: str) -> int | None:
    """The virtual host with the closest domain: exact, longest suffix, longest prefix, any."""
    best: tuple[int, int] = (-1, 0)
    found = None
    for index, one in enumerate(hosts):
        for domain in one.domains:
            close = _closeness(domain.lower(), host)
            if close > best:
                best, found = close, index
    return found


def _closeness(domain: str, host: str) -> tuple[int, int]:
    if domain == host:
        return 3, 0
    if domain == "*":
        return 0, 0
    longer = len(host) >= len(domain)  # the * stands for at least one character
    if domain.startswith("*") and longer and host.endswith(domain[1:]):
        return 2, len(domain)
    if domain.endswith("*") and longer and host.startswith(domain[:-1]):
        return 1, len(domain)
    return -1, 0


def matches(route: Route, request: Request, *, full_match: FullMatch) -> bool:
    """Whether all that a route asks for holds."""
    match = route.match
    return (
        _path_matches(match.path, request.path, full_match)
        and all(_header_matches(one, request, full_match) for one in match.headers)
        and all(_parameter_matches(one, request, full_match) for one in match.query)
    )


def _folded(text: str, fold: bool) -> str:  # noqa: FBT001 - private
    """Lower case in ASCII alone, as Envoy has it."""
    return "".join(one.lower() if one.isascii() else one for one in text) if fold else text


def _path_matches(asked: PathMatch, path: str, full_match: FullMatch) -> bool:
    value, path = _folded(asked.value, asked.ignore_case), _folded(path, asked.ignore_case)
    match asked.kind:
        case PathKind.EXACT:
            return path == value
        case PathKind.PREFIX:
            return path.startswith(value)
        case PathKind.SEPARATED_PREFIX:
            return path == value or path.startswith(f"{value}/")
        case PathKind.REGEX:
            return full_match(asked.value, path)


def text_matches(asked: TextMatch, value: str, full_match: FullMatch) -> bool:
    """Whether a value that is there passes a test."""
    if asked.kind is TextKind.REGEX:
        return full_match(asked.value, value)
    wanted, value = _folded(asked.value, asked.ignore_case), _folded(value, asked.ignore_case)
    match asked.kind:
        case TextKind.EXACT:
            return value == wanted
        case TextKind.PREFIX:
            return value.startswith(wanted)
        case TextKind.SUFFIX:
            return value.endswith(wanted)
        case TextKind.CONTAINS:
            return wanted in value
        case TextKind.PRESENT:
            return True


def _header_matches(asked: HeaderMatch, request: Request, full_match: FullMatch) -> bool:
    value = request.header(asked.name)
    if asked.text.kind is TextKind.PRESENT:
        return (value is not None or asked.missing_as_empty) != asked.invert
    if value is None and asked.missing_as_empty:
        value = ""
    if value is None:
        return False  # inverted or not
    return text_matches(asked.text, value, full_match) != asked.invert


def _parameter_matches(asked: QueryMatch, request: Request, full_match: FullMatch) -> bool:
    value = request.parameter(asked.name)
    return value is not None and text_matches(asked.text, value, full_match)
