# SPDX-License-Identifier: Apache-2.0
"""What authorization asks of clients, apart from what it asks of requests.

The graph of routes tells requests apart, and knows nothing of who sends them. So cases are made into
others that only ask for the request, each with a ruling: what is decided of it, or of which clients
what. The gate, which knows the client of each connection, carries such a ruling out (http_rulings.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from runtime.model.http import HeaderMatch, HttpPort, PrincipalIs, Rbac, TextKind, TextMatch
from runtime.tables.http_authorization import (
    MOST_CASES,
    BeyondError,
    Case,
    Client,
    Cube,
    Decision,
    Sender,
    authorization_cases,
)

_CACHED = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided of clients that are so."""

    senders: tuple[Sender, ...]
    decision: Decision


@dataclass(frozen=True, slots=True)
class ByClient:
    """What is decided of requests that are alike, by who sends them: the first that holds, the last asks nothing."""

    verdicts: tuple[Verdict, ...]

    @property
    def allowed(self) -> bool | None:
        """Whether they may pass, where that is the same for all clients."""
        found = {one.decision.allowed for one in self.verdicts}
        return found.pop() if len(found) == 1 else None


Ruling = Decision | ByClient


@dataclass(frozen=True, slots=True)
class Ruled:
    """What is asked of a request, and what is decided of those that are so."""

    asked: Cube
    ruling: Ruling

    @property
    def by_client(self) -> bool:
        """Some clients may, and others may not."""
        return self.ruling.allowed is None


def asks_identity(ruling: Ruling) -> bool:
    """Whether it matters who a client is, not where alone."""
    verdicts = ruling.verdicts if isinstance(ruling, ByClient) else ()
    return any(isinstance(each.condition, PrincipalIs) for one in verdicts for each in one.senders)


def rulings(
    rules: tuple[Rbac, ...], port: HttpPort, client: Client | None = None
) -> Sequence[Ruled]:
    """Cases of which the first that holds decides; the last asks nothing of the request.

    Args:
        rules: in their order.
        port: where they hold.
        client: who asks, where that is known: then each ruling is a decision.

    Raises:
        BeyondError: they cannot be expressed.
    """
    if client is not None:
        return _grouped(authorization_cases(rules, port, client))
    found = _rulings(rules, replace(port, rbac=()))
    if isinstance(found, str):
        raise BeyondError(found)
    return found


@lru_cache(_CACHED)  # the rules of a port are most routes'
def _rulings(rules: tuple[Rbac, ...], port: HttpPort) -> Sequence[Ruled] | str:
    try:
        return _grouped(authorization_cases(rules, port))
    except BeyondError as error:
        return str(error)


def _grouped(cases: list[Case]) -> Sequence[Ruled]:
    if not any(case.senders for case in cases):
        return [Ruled(case.asked, case.decision) for case in cases]
    found = list(islice(_split(cases), MOST_CASES + 1))
    if len(found) > MOST_CASES:
        raise BeyondError(f"rbac: more than {MOST_CASES} cases")
    return [Ruled(asked, _ruling(verdicts)) for asked, verdicts in found]


def _ruling(verdicts: tuple[Verdict, ...]) -> Ruling:
    return verdicts[0].decision if len(verdicts) == 1 else ByClient(verdicts)


def _split(cases: Sequence[Case]) -> Iterator[tuple[Cube, tuple[Verdict, ...]]]:
    """Whether the first case's requests are meant is asked at once, and who sends them is left for later."""
    first, rest = cases[0], cases[1:]
    verdict = Verdict(first.senders, first.decision)
    if not first.senders:
        yield first.asked, (verdict,)
    else:
        for asked, verdicts in _split(_given(rest, first.asked)):
            yield (*first.asked, *asked), (verdict, *verdicts)
    if first.asked:
        yield from _split(_without(rest, first.asked))


def _given(cases: Sequence[Case], known: Cube) -> list[Case]:
    """The cases of requests of which something is known: what contradicts it is left out."""
    found = []
    for case in cases:
        if any(_exclude(one, other) for one in case.asked for other in known):
            continue
        found.append(replace(case, asked=tuple(one for one in case.asked if one not in known)))
    return found


def _without(cases: Sequence[Case], denied: Cube) -> list[Case]:
    """The cases of requests of which not all of something holds."""
    return [case for case in cases if not set(denied) <= set(case.asked)]


def _exclude(one: HeaderMatch, other: HeaderMatch) -> bool:
    """Whether no request is as both want it; where it is not seen there are only more cases."""
    if one.name != other.name:
        return False
    if replace(one, invert=not one.invert) == other:
        return True
    plain = not (one.invert or other.invert or one.text.ignore_case or other.text.ignore_case)
    return plain and (_never(one.text, other.text) or _never(other.text, one.text))


def _never(one: TextMatch, other: TextMatch) -> bool:
    """Whether what is, or begins, as one text is never as another."""
    match one.kind, other.kind:
        case TextKind.EXACT, TextKind.EXACT:
            return one.value != other.value
        case TextKind.EXACT, TextKind.PREFIX:
            return not one.value.startswith(other.value)
        case TextKind.EXACT, TextKind.SUFFIX:
            return not one.value.endswith(other.value)
        case TextKind.EXACT, TextKind.CONTAINS:
            return other.value not in one.value
        case TextKind.PREFIX, TextKind.PREFIX:
            return not (one.value.startswith(other.value) or other.value.startswith(one.value))
        case _:
            return False
