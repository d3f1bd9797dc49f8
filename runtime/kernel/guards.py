# SPDX-License-Identifier: Apache-2.0
"""Reading who is guarded by policies from the pinned maps, whoever wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from runtime.bpf.maps import BpfMap
from runtime.errors import KmeshError
from runtime.tables.policy_layout import DIGEST, AddressKey, Guard, Hit, HitKey
from runtime.tables.policy_set import NO_TERM_ALLOWS, Flag


@dataclass(frozen=True, slots=True)
class Guarded:
    """An address of this node, and what its policies decided.

    Attributes:
        address: as people write it.
        set: the number of its policies together; addresses with the same policies share it.
        refuses_by_default: there is an allow policy: what none of them matches is refused.
        closed: its policies did not fit into the kernel: everyone is refused.
        decided: connections that one of the policies decided, since the set is in the kernel.
        refused_by_default: connections that no allow policy matched.
    """

    address: str
    set: int
    refuses_by_default: bool
    closed: bool
    decided: int
    refused_by_default: int


def read_guards(pins: Path) -> list[Guarded]:
    """The guarded addresses in order; none where no policy ever guarded any.

    Raises:
        KmeshError: the maps are another version's, or must not be opened.
    """
    home = pins / "authorize"
    if not (tables := home / DIGEST[:16]).is_dir():
        if any(home.glob("*/guards")):
            raise KmeshError(
                f"the maps at {home} are laid out by another version of Kmesh",
                hint="ask with that version's kmeshctl, or start this version's daemon",
            )
        return []
    decided: Counter[int] = Counter()
    refused: Counter[int] = Counter()
    with ExitStack() as stack:
        for packed, value in _elements(tables / "policy_hits", stack):
            key, hit = HitKey.unpack(packed), Hit.unpack(value)
            if hit.policy:
                decided[key.set] += hit.times
            elif key.word == NO_TERM_ALLOWS:
                refused[key.set] += hit.times
        guards = sorted(_elements(tables / "guards", stack))
    return [
        _guarded(AddressKey.unpack(key), Guard.unpack(value), decided, refused)
        for key, value in guards
    ]


def _elements(pin: Path, stack: ExitStack) -> Iterator[tuple[bytes, bytes]]:
    """By single look-ups, as not every kernel reads such maps in batches."""
    opened = BpfMap.pinned(pin)
    stack.callback(opened.close)
    for key in list(opened.keys()):
        value = opened.lookup(key)
        if value is not None:
            yield key, value


def _guarded(
    key: AddressKey, guard: Guard, decided: Counter[int], refused: Counter[int]
) -> Guarded:
    address = IPv6Address(key.address)
    return Guarded(
        address=str(address.ipv4_mapped or address),
        set=guard.set,
        refuses_by_default=bool(guard.flags & Flag.HAS_ALLOW),
        closed=bool(guard.flags & Flag.CLOSED),
        decided=decided[guard.set],
        refused_by_default=refused[guard.set],
    )
