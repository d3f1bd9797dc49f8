# SPDX-License-Identifier: Apache-2.0
"""Authorization as cases: what is asked of a request, in order, and whether it may pass.

The first case that holds decides, as with routes, so that the same graph that chooses a route tells
who may take it. Conditions on the connection that are the same for all of a port are decided here; what is
asked of a client that is not known stands beside what is asked of the request (http_clients.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, product
from typing import TypeVar

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
    PrincipalIs,
    Rbac,
    RbacPolicy,
    SourceIn,
    TextKind,
    TextMatch,
)
from runtime.model.policy import Action
from runtime.tables.http_conditions import PATH_ALONE

MOST_CASES = 128  # of a route
_T = TypeVar("_T")

Cube = tuple[HeaderMatch, ...]  # all of which must hold
Client = Callable[[SourceIn | PrincipalIs], bool]  # whether a client meets it
_Holds = Callable[
    [Condition], bool | None
]  # of what does not depend on the request; None: on who sends it


@dataclass(frozen=True, slots=True)
class Sender:
    """Holds for clients that meet a condition, or with `wanted` False for those that do not."""

    condition: SourceIn | PrincipalIs
    wanted: bool


_Asked = tuple[HeaderMatch | Sender, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say to a request, and whose word that is.

    Attributes:
        allowed: whether it may pass.
        policies: names of the policies: of the one that denies, or of those that allow, one of each
            filter that allows; none where no policy allows it, or nothing forbids it.
    """

    allowed: bool
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of a request and of who sends it, and what is decided of those that are so."""

    asked: Cube
    decision: Decision
    senders: tuple[Sender, ...] = ()


class BeyondError(Exception):
    """It cannot be told from the request's head; the message says what."""


def authorization_cases(
    rules: Sequence[Rbac], port: HttpPort, client: Client | None = None
) -> list[Case]:
    """The cases of all rules together; the last asks nothing.

    Args:
        rules: in their order.
        port: where they hold.
        client: who asks, where that is known; else cases ask for it.

    Raises:
        BeyondError: they cannot be expressed.
    """
    holds = partial(_is_so, port=port, client=client)
    found = list(_up_to_the_first_free(_cases(rules, holds)))
    if len(found) > MOST_CASES:
        raise BeyondError(f"rbac: more than {MOST_CASES} cases")
    return found


def _up_to_the_first_free(cases: Iterable[Case]) -> Iterator[Case]:
    for case in cases:
        yield case
        if not case.asked and not case.senders:
            return


def _cases(rules: Sequence[Rbac], holds: _Holds) -> list[Case]:
    if not rules:
        return [Case((), Decision(allowed=True))]
    first, rest = rules[0], _cases(rules[1:], holds)
    asked = _bounded((*cube, one.name) for one in first.policies for cube in _policy(one, holds))
    if first.action is Action.DENY:
        denied = (
            Case(cube, Decision(allowed=False, policies=(name,)), senders)
            for cube, senders, name in asked
        )
        return [*denied, *rest]
    passing = _bounded(
        Case((*cube, *more.asked), _allowed_by(name, more.decision), (*senders, *more.senders))
        for cube, senders, name in asked
        for more in rest
    )
    return [*passing, Case((), Decision(allowed=False))]


def _allowed_by(name: str, rest: Decision) -> Decision:
    """What is decided of a request that a policy lets through to the rules after it."""
    return replace(rest, policies=(name, *rest.policies)) if rest.allowed else rest


def _bounded(found: Iterable[_T]) -> list[_T]:
    made = list(islice(found, MOST_CASES + 1))
    if len(made) > MOST_CASES:
        raise BeyondError(f"rbac: more than {MOST_CASES} cases")
    return made


def _policy(policy: RbacPolicy, holds: _Holds) -> Iterator[tuple[Cube, tuple[Sender, ...]]]:
    both = AllOf((AnyOf(policy.permissions), AnyOf(policy.principals)))
    for cube in _cubes(both, holds, wanted=True):
        senders = tuple(dict.fromkeys(one for one in cube if isinstance(one, Sender)))
        asked = tuple(one for one in cube if isinstance(one, HeaderMatch))
        yield asked, senders


def _cubes(condition: Condition, holds: _Holds, *, wanted: bool) -> list[_Asked]:
    """Cubes of which one is true where the condition is (or, with `wanted` False, is not)."""
    match condition:
        case Anything():
            return [()] if wanted else []
        case Not(inner):
            return _cubes(inner, holds, wanted=not wanted)
        case AllOf(parts) | AnyOf(parts):
            made = [_cubes(part, holds, wanted=wanted) for part in parts]
            all_of_them = isinstance(condition, AllOf) == wanted
            return _joined(made) if all_of_them else _bounded(chain.from_iterable(made))
        case HeaderMatch():
            return [(condition,)] if wanted else [(one,) for one in _negated(condition)]
        case PathIs(text):
            return [(HeaderMatch(PATH_ALONE, text, invert=not wanted),)]
        case _:
            return _of_connection(condition, holds, wanted=wanted)


def _of_connection(condition: Condition, holds: _Holds, *, wanted: bool) -> list[_Asked]:
    found = holds(condition)
    if found is None and isinstance(condition, SourceIn | PrincipalIs):
        return [(Sender(condition, wanted),)]
    return [()] if found == wanted else []


def _joined(parts: list[list[_Asked]]) -> list[_Asked]:
    return _bounded(tuple(chain.from_iterable(one)) for one in product(*parts))


def _negated(header: HeaderMatch) -> list[HeaderMatch]:
    """Matches of which one holds where this one does not: a missing header matches none, inverted or not."""
    opposite = replace(header, invert=not header.invert)
    if header.text.kind is TextKind.PRESENT or header.missing_as_empty or header.name[:1] == ":":
        return [opposite]
    return [opposite, HeaderMatch(header.name, TextMatch(TextKind.PRESENT), invert=True)]


def _is_so(condition: Condition, *, port: HttpPort, client: Client | None) -> bool | None:
    """Of what all connections to a port have in common, or all of one client; None: it is not known which."""
    match condition:
        case PortIn(first, last):
            return first <= port.port <= last
        case DestinationIn(block) if port.address is not None:
            return port.address in block
        case DestinationIn():
            raise BeyondError("rbac: destination_ip, where the port is one of many addresses")
        case SourceIn() | PrincipalIs():
            return None if client is None else client(condition)
        case _:
            raise TypeError(f"{condition} is asked of the request")
