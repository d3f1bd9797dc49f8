# SPDX-License-Identifier: Apache-2.0
"""What a route asks of a request, as conditions on places of its head.

A condition that cannot be tested is left out, and why is told: the route then takes more requests
than it should, so whoever is taken by it has to be judged by a proxy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from runtime.model.http import (
    Forward,
    HashKind,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Route,
    RouteMatch,
    RouteTable,
    TextKind,
    TextMatch,
)
from runtime.tables.http_grammar import RESERVED
from runtime.tables.http_numbers import SLOTS, Place
from runtime.tables.http_regex import Regex, compile_regex, literal_prefix
from runtime.tables.http_regex_syntax import UnsupportedRegexError

# Written by the proxy itself before it chooses a route; only a proxy knows what it will write.
_REWRITTEN = (
    "x-forwarded-",
    "x-envoy-",
    "x-request-id",
    "x-b3-",
    "traceparent",
    "tracestate",
    "via",
)
PATH_ALONE = ":path alone"  # the path without its query, where a header is asked for
PSEUDO = {
    ":method": Place.METHOD, ":authority": Place.AUTHORITY, "host": Place.AUTHORITY,
    ":path": Place.TARGET, PATH_ALONE: Place.PATH,
}  # fmt: skip
_ORDER = (Place.PATH, Place.METHOD, Place.AUTHORITY, Place.TARGET)

Name = tuple[bool, str]  # whether it is a query parameter; the name


@dataclass(frozen=True, slots=True)
class Text:
    """A test of a value that is there."""

    kind: PathKind | TextKind
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds when the value at a place passes the test, or does not and `invert` is set.

    `absent`: what it is where there is no such value.
    """

    place: int
    text: Text
    invert: bool = False
    absent: bool = False

    @property
    def rank(self) -> int:
        """Places are tested in this order."""
        return _ORDER.index(Place(self.place)) if self.place in _ORDER else self.place + len(_ORDER)


@dataclass(slots=True)
class Conditions:
    """Conditions of the routes of a table.

    Args:
        slots: the place of each header and query parameter that has one.
        given_up: tests that have turned out too large for an automaton, and why.
    """

    slots: dict[Name, int]
    given_up: dict[Text, str] = field(default_factory=dict)
    _expressions: dict[str, Regex | str] = field(default_factory=dict)

    def expression(self, pattern: str) -> Regex:
        """The compiled expression.

        Raises:
            UnsupportedRegexError: there is none, with the reason.
        """
        found = self._expressions.get(pattern)
        if found is None:
            try:
                found = compile_regex(pattern)
            except UnsupportedRegexError as error:
                found = f"regular expression {pattern!r}: {error}"
            self._expressions[pattern] = found
        if isinstance(found, str):
            raise UnsupportedRegexError(found)
        return found

    def of(self, route: Route) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
        """A route's conditions in the order of their places, and why others were left out."""
        found: dict[Condition, None] = {}
        reasons: list[str] = []
        asked: list[PathMatch | HeaderMatch | QueryMatch] = [
            route.match.path, *route.match.headers, *route.match.query
        ]  # fmt: skip
        for one in asked:
            try:
                found.update(dict.fromkeys(self._one(one)))
            except UnsupportedRegexError as error:
                reasons.append(str(error))
                found.update(dict.fromkeys(_roughly(one)))
        return tuple(sorted(found, key=lambda one: one.rank)), tuple(reasons)

    def why_not(self, asked: PathMatch | HeaderMatch | QueryMatch) -> tuple[str, ...]:
        """Why something that is asked of a request cannot be tested; empty where it can."""
        try:
            list(self._one(asked))
        except UnsupportedRegexError as error:
            return (str(error),)
        return ()

    def _one(self, asked: PathMatch | HeaderMatch | QueryMatch) -> Iterator[Condition]:
        match asked:
            case PathMatch(PathKind.PREFIX, "" | "/"):
                return
            case PathMatch(kind, value, ignore_case):
                yield self._checked(Condition(Place.PATH, Text(kind, value, ignore_case)))
            case QueryMatch(name, text):
                yield self._checked(Condition(self._place((True, name)), _text(text)))
            case HeaderMatch():
                yield self._checked(self._header(asked))

    def _checked(self, condition: Condition) -> Condition:
        text = condition.text
        if text in self.given_up:
            raise UnsupportedRegexError(self.given_up[text])
        if text.kind in {PathKind.REGEX, TextKind.REGEX}:
            self.expression(text.value)
        return condition

    def _header(self, asked: HeaderMatch) -> Condition:
        pseudo = PSEUDO.get(asked.name)
        place = int(pseudo) if pseudo else self._place((False, asked.name))
        if asked.missing_as_empty or asked.text.kind is TextKind.PRESENT:
            absent = (asked.missing_as_empty and self._matches_empty(asked.text)) != asked.invert
        else:
            absent = False  # inverted or not
        return Condition(place, _text(asked.text), asked.invert, absent)

    def _matches_empty(self, text: TextMatch) -> bool:
        if text.kind is TextKind.REGEX:
            return self.expression(text.value).empty
        return text.kind is TextKind.PRESENT or not text.value

    def _place(self, name: Name) -> int:
        reason = unreadable(name)
        if reason:
            raise UnsupportedRegexError(reason)
        if name not in self.slots:
            raise UnsupportedRegexError(f"{_called(name)}: more than {SLOTS} are asked for")
        return self.slots[name]


@lru_cache(maxsize=20_000)  # most routes of a table that changes are those of before
def recognised(match: RouteMatch) -> tuple[RouteMatch, tuple[str, ...]]:
    """A match that can be compiled and takes at least the requests of the one given; and why not that.

    How much fits into one table together is not known here: see `CompiledRoutes.rough`.
    """
    names = {(False, one.name): 0 for one in match.headers}
    conditions = Conditions(names | {(True, one.name): 0 for one in match.query})
    reasons: list[str] = []

    def fits(asked: PathMatch | HeaderMatch | QueryMatch) -> bool:
        why = conditions.why_not(asked)
        reasons.extend(why)
        return not why

    path = (
        match.path
        if fits(match.path)
        else PathMatch(PathKind.PREFIX, literal_prefix(match.path.value))
    )
    headers = tuple(filter(fits, match.headers))
    query = tuple(filter(fits, match.query))
    return RouteMatch(path, headers, query), tuple(reasons)


def _called(name: Name) -> str:
    return f"query parameter {name[1]!r}" if name[0] else f"header {name[1]!r}"


def _text(text: TextMatch) -> Text:
    fold = text.ignore_case and text.kind not in {TextKind.REGEX, TextKind.PRESENT}
    return Text(text.kind, "" if text.kind is TextKind.PRESENT else text.value, fold)


def _roughly(asked: PathMatch | HeaderMatch | QueryMatch) -> Iterator[Condition]:
    """A condition that holds at least where the one asked for does."""
    if isinstance(asked, PathMatch) and asked.kind is PathKind.REGEX:
        prefix = literal_prefix(asked.value)
        if len(prefix) > 1:
            yield Condition(Place.PATH, Text(PathKind.PREFIX, prefix))


def unreadable(name: Name) -> str | None:
    """Why no route can be chosen by this header or parameter, or None."""
    query, text = name
    if query:
        good = text.isascii() and text.isprintable() and not set("&=# ") & set(text) and text
        return None if good else f"{_called(name)}: not a name that a URL can have"
    if text in RESERVED or text.startswith(":"):
        return f"{_called(name)}: belongs to the connection, or to no request here"
    if text.startswith(_REWRITTEN):
        return f"{_called(name)}: a proxy writes it before it chooses a route"
    if not set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") or not text:
        return f"{_called(name)}: not a name that a header can have"
    return None


def names_of(table: RouteTable, wanted: Iterable[Name]) -> list[Name]:
    """Headers and parameters whose values matter, those wanted first, then by how many ask for them."""
    counts: Counter[Name] = Counter()
    for host in table.virtual_hosts:
        for route in host.routes:
            counts.update(set(_names_in(route)))
    first = dict.fromkeys(wanted)
    rest = sorted(
        (name for name in counts if name not in first), key=lambda one: (-counts[one], one)
    )
    return [name for name in (*first, *rest) if unreadable(name) is None]


def _names_in(route: Route) -> Iterator[Name]:
    for header in route.match.headers:
        if header.name not in PSEUDO:
            yield False, header.name
    for parameter in route.match.query:
        yield True, parameter.name
    if isinstance(route.action, Forward):
        for policy in route.action.hash_policies:
            if policy.kind is HashKind.HEADER and policy.name not in PSEUDO:
                yield False, policy.name
            elif policy.kind is HashKind.QUERY:
                yield True, policy.name
            elif policy.kind is HashKind.COOKIE:
                yield False, "cookie"


def slots_for(names: Collection[Name]) -> dict[Name, int]:
    """Places for as many as there are."""
    return {name: Place.SLOT + index for index, name in zip(range(SLOTS), names, strict=False)}
