# SPDX-License-Identifier: Apache-2.0
"""Authorization as cases: what is asked of a request, in order, and whether it may pass.

The first case that holds decides, as with routes, so that the same graph that chooses a route tells
who may take it. Conditions on the connection that are the same for all of a port are decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, product

from runtime.model.http import (
    AllOf,
    AnyOf,
    Anything,
    Condition,
    DestinationIn,
    HeaderMatch,
    HttpPort,
    Not,
    PathIs,
    PortIn,
    Rbac,
    RbacPolicy,
    TextKind,
    TextMatch,
)
from runtime.model.policy import Action
from runtime.tables.http_conditions import PATH_ALONE

MOST_CASES = 128  # of a route

Cube = tuple[HeaderMatch, ...]  # all of which must hold
Case = tuple[Cube, bool]  # whether it may pass


class BeyondError(Exception):
    """It cannot be told from the request's head; the message says what."""


def authorization_cases(rules: Sequence[Rbac], port: HttpPort) -> list[Case]:
    """The cases of all rules together; the last asks nothing.

    Raises:
        BeyondError: they cannot be expressed.
    """
    found = list(_up_to_the_first_free(_cases(rules, port)))
    if len(found) > MOST_CASES:
        raise BeyondError(f"rbac: more than {MOST_CASES} cases")
    return found


def _up_to_the_first_free(cases: Iterable[Case]) -> Iterator[Case]:
    for case in cases:
        yield case
        if not case[0]:
            return


def _cases(rules: Sequence[Rbac], port: HttpPort) -> list[Case]:
    if not rules:
        return [((), True)]
    first, rest = rules[0], _cases(rules[1:], port)
    cubes = _bounded(chain.from_iterable(_policy(one, port) for one in first.policies))
    if first.action is Action.DENY:
        return [*((cube, False) for cube in cubes), *rest]
    allowed = [((*cube, *more), passes) for cube in cubes for more, passes in rest]
    if len(allowed) > MOST_CASES:
        raise BeyondError(f"rbac: more than {MOST_CASES} cases")
    return [*allowed, ((), False)]


def _bounded(cubes: Iterable[Cube]) -> list[Cube]:
    found: list[Cube] = []
    for cube in cubes:
        found.append(cube)
        if len(found) > MOST_CASES:
            raise BeyondError(f"rbac: more than {MOST_CASES} cases")
    return found


def _policy(policy: RbacPolicy, port: HttpPort) -> list[Cube]:
    both = AllOf((AnyOf(policy.permissions), AnyOf(policy.principals)))
    return _cubes(both, port, holds=True)


def _cubes(condition: Condition, port: HttpPort, *, holds: bool) -> list[Cube]:
    """Cubes of which one is true where the condition is (or, with `holds` False, is not)."""
    match condition:
        case Anything():
            return [()] if holds else []
        case Not(inner):
            return _cubes(inner, port, holds=not holds)
        case AllOf(parts) | AnyOf(parts):
            made = [_cubes(part, port, holds=holds) for part in parts]
            all_of_them = isinstance(condition, AllOf) == holds
            return _joined(made) if all_of_them else _bounded(chain.from_iterable(made))
        case HeaderMatch():
            return [(condition,)] if holds else [(one,) for one in _negated(condition)]
        case PathIs(text):
            return [(HeaderMatch(PATH_ALONE, text, invert=not holds),)]
        case _:
            return [()] if _is_so(condition, port) == holds else []


def _joined(parts: list[list[Cube]]) -> list[Cube]:
    return _bounded(tuple(chain.from_iterable(one)) for one in product(*parts))


def _negated(header: HeaderMatch) -> list[HeaderMatch]:
    """Matches of which one holds where this one does not: a missing header matches none, inverted or not."""
    opposite = replace(header, invert=not header.invert)
    if header.text.kind is TextKind.PRESENT or header.missing_as_empty or header.name[:1] == ":":
        return [opposite]
    return [opposite, HeaderMatch(header.name, TextMatch(TextKind.PRESENT), invert=True)]


def _is_so(condition: Condition, port: HttpPort) -> bool:
    """Of what all connections to a port have in common."""
    match condition:
        case PortIn(first, last):
            return first <= port.port <= last
        case DestinationIn(block) if port.address is not None:
            return port.address in block
        case DestinationIn():
            raise BeyondError("rbac: destination_ip, where the port is one of many addresses")
        case _:
            raise BeyondError("rbac: conditions on the client")
