# SPDX-License-Identifier: Apache-2.0
"""A ruling by client as the gate reads it (runtime/gate/ruling.h): blocks, an automaton, and verdicts.

All that is asked of the client's name is one automaton, each of whose states says what holds of a name that ends
there. So a rule costs what the name is long, and expressions cost no more than texts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from runtime.model.http import PrincipalIs, SourceIn, TextKind, TextMatch
from runtime.model.policy import IPNetwork
from runtime.tables.http_authorization import BeyondError
from runtime.tables.http_clients import ByClient, Verdict
from runtime.tables.http_minimise import minimise
from runtime.tables.http_regex import compile_regex
from runtime.tables.http_regex_syntax import UnsupportedRegexError
from runtime.tables.http_union import Dfa, TooManyStatesError, Union

MOST_FACTS = 64  # one bit each
MOST_STATES = 2000
_MOST_STEPS = 60_000
_HEAD = struct.Struct("=HHHH")  # struct ruling
_BLOCK = struct.Struct("=16sBB6x")  # struct ruling_block
_STATE = struct.Struct("=QIHH")  # struct ruling_state
_VERDICT = struct.Struct("=QQI4x")  # struct ruling_verdict
_STEP = struct.Struct("=HBx")  # struct ruling_step
_CACHED = 64
_MAPPED = bytes(10) + b"\xff\xff"


def pack_ruling(ruling: ByClient) -> bytes:
    """The bytes of a ruling.

    Raises:
        BeyondError: it is too large, or has an expression that is not understood.
    """
    found = _packed(ruling)
    if isinstance(found, str):
        raise BeyondError(found)
    return found


@lru_cache(_CACHED)
def _packed(ruling: ByClient) -> bytes | str:
    try:
        return _pack(_needed(ruling.verdicts))
    except UnsupportedRegexError as error:
        return f"rbac: of the client's name: {error}"
    except TooManyStatesError as error:
        return f"rbac: what is asked of the client's name has {error}"
    except BeyondError as error:
        return str(error)


def _needed(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """Without those before the last that say the same as it: who decides is of no matter to the gate."""
    last = verdicts[-1]
    count = len(verdicts) - 1
    while count and verdicts[count - 1].decision.allowed == last.decision.allowed:
        count -= 1
    return [*verdicts[:count], last]


def _pack(verdicts: Sequence[Verdict]) -> bytes:
    asked = [sender.condition for one in verdicts for sender in one.senders]
    blocks = list(dict.fromkeys(one.block for one in asked if isinstance(one, SourceIn)))
    texts = list(dict.fromkeys(one.text for one in asked if isinstance(one, PrincipalIs)))
    if len(blocks) + len(texts) > MOST_FACTS:
        raise BeyondError(f"rbac: more than {MOST_FACTS} conditions on the client")
    bits: dict[SourceIn | PrincipalIs, int] = {
        SourceIn(one): 1 << n for n, one in enumerate(blocks)
    }
    bits |= {PrincipalIs(one): 1 << n for n, one in enumerate(texts, len(blocks))}
    states, steps = _automaton(texts, len(blocks)) if texts else (b"", b"")
    head = _HEAD.pack(
        len(blocks), len(states) // _STATE.size, len(verdicts), len(steps) // _STEP.size
    )
    rows = (_verdict(one, bits) for one in verdicts)
    return b"".join((head, *map(_block, blocks), states, *rows, steps))


def _verdict(verdict: Verdict, bits: dict[SourceIn | PrincipalIs, int]) -> bytes:
    masks = {True: 0, False: 0}
    for one in verdict.senders:
        masks[one.wanted] |= bits[one.condition]
    return _VERDICT.pack(masks[True], masks[False], verdict.decision.allowed)


def _block(block: IPNetwork) -> bytes:
    """The first address and how many bits count, of an address as the maps have it."""
    packed = block.network_address.packed
    if block.version == 4:
        return _BLOCK.pack(_MAPPED + packed, 96 + block.prefixlen, 4)
    return _BLOCK.pack(packed, block.prefixlen, 6)


def _automaton(texts: Sequence[TextMatch], first: int) -> tuple[bytes, bytes]:
    """States and steps; bit `first` + n is for text n."""
    union = Union()
    for number, text in enumerate(texts):
        if text.kind is TextKind.REGEX:
            union.add_expression(number, compile_regex(text.value))
        else:
            union.add_text(number, text.kind, text.value, ignore_case=text.ignore_case)
    facts: dict[int, int] = {}

    def label(found: frozenset[int]) -> int:
        mask = sum(1 << first + one for one in found)
        return facts.setdefault(mask, len(facts))

    dfa = minimise(union.determinise(label, limit=MOST_STATES))
    masks = {number: mask for mask, number in facts.items()}
    return _states(dfa, masks)


def _states(dfa: Dfa, masks: dict[int, int]) -> tuple[bytes, bytes]:
    states, steps = bytearray(), bytearray()
    for state, meaning in enumerate(dfa.meaning):
        here = sorted(dfa.steps[state].items())
        states += _STATE.pack(
            masks[meaning], len(steps) // _STEP.size, len(here), dfa.otherwise[state]
        )
        steps += b"".join(_STEP.pack(to, byte) for byte, to in here)
    if len(steps) // _STEP.size > _MOST_STEPS:
        raise BeyondError(
            f"rbac: what is asked of the client's name has more than {_MOST_STEPS} steps"
        )
    return bytes(states), bytes(steps)
