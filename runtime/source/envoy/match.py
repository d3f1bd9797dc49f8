# SPDX-License-Identifier: Apache-2.0
"""What a route asks of a request: path, headers, query.

A condition that cannot be expressed is left out and told: since all conditions must hold, what is
left takes every request that the whole would take, and then some.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.model.http import (
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    RouteMatch,
    TextKind,
    TextMatch,
)
from runtime.source.envoy.whitelist import Fields

_ANY_PATH = PathMatch(PathKind.PREFIX, "")
_PRESENT = TextMatch(TextKind.PRESENT)
_TEXTS = {
    "exact": TextKind.EXACT,
    "prefix": TextKind.PREFIX,
    "suffix": TextKind.SUFFIX,
    "contains": TextKind.CONTAINS,
}
_PATHS = {
    "path": PathKind.EXACT,
    "prefix": PathKind.PREFIX,
    "path_separated_prefix": PathKind.SEPARATED_PREFIX,
}
# The older way to write a header's match: Envoy reads an empty exact value as "present".
_OLD_HEADER = {
    "exact_match": TextKind.EXACT,
    "prefix_match": TextKind.PREFIX,
    "suffix_match": TextKind.SUFFIX,
    "contains_match": TextKind.CONTAINS,
}


def decode_match(wire: Any) -> tuple[RouteMatch, list[str]]:
    """A `RouteMatch`, and what of it cannot be expressed."""
    fields = Fields(wire, "match.")
    beyond: list[str] = []
    extra: list[HeaderMatch] = []
    path = _path(fields, beyond, extra)
    headers = _each(fields.take("headers"), decode_header, "match.headers", beyond)
    query = _each(fields.take("query_parameters"), _query, "match.query_parameters", beyond)
    if fields.has("grpc"):  # such requests alone can match
        extra.append(HeaderMatch("content-type", TextMatch(TextKind.PREFIX, "application/grpc")))
    beyond += fields.rest()
    return RouteMatch(path, (*extra, *headers), tuple(query)), beyond


def _path(fields: Fields, beyond: list[str], extra: list[HeaderMatch]) -> PathMatch:
    ignore_case = not fields.wrapped("case_sensitive", default=True)
    for name, kind in _PATHS.items():
        if fields.has(name):
            return PathMatch(kind, fields.take(name), ignore_case)
    if fields.has("safe_regex"):
        return PathMatch(PathKind.REGEX, _regex(fields.take("safe_regex"), beyond))
    if fields.has("connect_matcher"):  # left to `rest`
        extra.append(HeaderMatch(":method", TextMatch(TextKind.EXACT, "CONNECT")))
    elif not fields.has("path_match_policy"):
        beyond.append("match: no path is told")
    return _ANY_PATH


def _regex(wire: Any, beyond: list[str]) -> str:
    fields = Fields(wire, "safe_regex.")
    fields.ignore("google_re2")  # the only engine there is
    pattern: str = fields.take("regex")
    beyond += fields.rest()
    return pattern


def decode_text(wire: Any, where: str, beyond: list[str]) -> TextMatch | None:
    """A `StringMatcher`; None for one that cannot be expressed, which is told."""
    fields = Fields(wire, f"{where}.")
    ignore_case = fields.take("ignore_case")
    told: list[str] = []
    made = None
    for name, kind in _TEXTS.items():
        if fields.has(name):
            made = TextMatch(kind, fields.take(name), ignore_case)
    if fields.has("safe_regex"):
        made = TextMatch(TextKind.REGEX, _regex(fields.take("safe_regex"), told))
    told += fields.rest()
    if made is None and not told:
        told = [f"{where}: no way to match is told"]
    beyond += told
    return None if told else made


def header_name(name: str) -> str:
    """A header's name as the model has it: Envoy keeps Host as `:authority`, under either name."""
    lower = name.lower()
    return ":authority" if lower == "host" else lower


def decode_header(wire: Any, where: str, beyond: list[str]) -> HeaderMatch | None:
    """A `HeaderMatcher`; None for one that cannot be expressed, which is told."""
    fields = Fields(wire, f"{where}.")
    name = header_name(fields.take("name"))
    invert = fields.take("invert_match")
    missing_as_empty = fields.take("treat_missing_header_as_empty")
    told: list[str] = []
    text: TextMatch | None = _PRESENT
    if fields.has("string_match"):
        text = decode_text(fields.take("string_match"), f"{where}.{name}", told)
    elif fields.has("present_match"):
        invert ^= not fields.take("present_match")
    elif fields.has("safe_regex_match"):
        text = TextMatch(TextKind.REGEX, _regex(fields.take("safe_regex_match"), told))
    else:
        text = _old_header(fields) or text
    told += fields.rest()
    if not name:
        told.append(f"{where}: it has no name")
    beyond += told
    if told or text is None:
        return None
    return HeaderMatch(name, text, invert, missing_as_empty)


def _old_header(fields: Fields) -> TextMatch | None:
    for name, kind in _OLD_HEADER.items():
        if fields.has(name):
            value = fields.take(name)
            return TextMatch(kind, value) if value else None
    return None


def _query(wire: Any, where: str, beyond: list[str]) -> QueryMatch | None:
    fields = Fields(wire, f"{where}.")
    name = fields.take("name")
    told: list[str] = []
    text: TextMatch | None = _PRESENT
    if fields.has("string_match"):
        text = decode_text(fields.take("string_match"), f"{where}.{name}", told)
    elif fields.has("present_match") and not fields.take("present_match"):
        told.append(f"{where}.{name}: present_match: false")
    told += fields.rest()
    beyond += told
    return None if told or text is None else QueryMatch(name, text)


def _each(
    wires: Any, decode: Callable[[Any, str, list[str]], Any], where: str, beyond: list[str]
) -> list[Any]:
    made = [decode(wire, where, beyond) for wire in wires]
    return [each for each in made if each is not None]
