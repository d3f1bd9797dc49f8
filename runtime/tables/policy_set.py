# SPDX-License-Identifier: Apache-2.0
"""The policies that guard a destination, compiled into the rows that the kernel ANDs.

A term is one bit of a row. Rows of one number hold terms of one kind: deny, allow, or dry run.
For each number there is a row for every port that is named and one for all others; the same for
identities, and for blocks of source addresses, of which the longest that fits counts.

bpf/include/kmesh/policy.h has the other side of all this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import partial
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import product
from math import prod
from typing import NamedTuple, TypeVar

from runtime.model.mesh import IPAddress
from runtime.model.policy import Action, Identity, IPNetwork, Policy
from runtime.tables.policy_layout import BlockKey, Guard, Hit, HitKey, Row, RowKey
from runtime.tables.policy_terms import PolicyTooLargeError, Term, all_of, terms_of

ROW_WORDS = 16
ROWS = 16
ROW_TERMS = ROW_WORDS * 64
BLOCK_FIXED_BITS = 96
NO_TERM_ALLOWS, ALL_REFUSED = 0xFFFFFFFF, 0xFFFFFFFE

Claim = frozenset[Identity | None]  # who an address may be: one, or several that claim it
Element = tuple[str, bytes, bytes]  # table, key, value
_T = TypeVar("_T")

_MAPPED = IPv6Network("::ffff:0:0/96")
_ROOTS: tuple[IPNetwork, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
# In the mesh, and nobody whom a policy can name.
_ANYBODY = Identity("\0", "\0", "\0")


class Kind(IntEnum):
    """What the terms of a row do: KMESH_DENY, KMESH_ALLOW, KMESH_DRY_RUN."""

    DENY = 1
    ALLOW = 2
    DRY_RUN = 3


class Flag(IntFlag):
    """kmesh_guard.flags."""

    HAS_ALLOW = 1
    BY_IDENTITY = 2
    BY_SOURCE = 4
    CLOSED = 8


class RowKind(IntEnum):
    """kmesh_row_key.kind."""

    IDENTITY = 1
    ANY_IDENTITY = 2
    NO_IDENTITY = 3
    PORT = 4
    ANY_PORT = 5


class Bit(NamedTuple):
    """A term where it stands, with the policy it is of."""

    term: Term
    policy: Policy


@dataclass(frozen=True, slots=True)
class RowTerms:
    """The terms that share a row number."""

    number: int
    kind: Kind
    bits: tuple[Bit, ...]

    def mask(self, admits: Callable[[Term], bool]) -> int:
        """A bit for each term that admits a value."""
        return sum(1 << index for index, bit in enumerate(self.bits) if admits(bit.term))

    def varied(self, mask: int, places: Iterable[int], admits: Callable[[Term], bool]) -> int:
        """A mask in which the terms in these places are asked anew."""
        for index in places:
            bit = 1 << index
            mask = mask | bit if admits(self.bits[index].term) else mask & ~bit
        return mask

    def naming(self, named: Callable[[Term], Iterable[_T]]) -> dict[_T, list[int]]:
        """The places of the terms that name a value, by value."""
        found: dict[_T, list[int]] = {}
        for index, bit in enumerate(self.bits):
            for value in named(bit.term):
                found.setdefault(value, []).append(index)
        return found

    def identities(self, claim: Claim) -> int:
        """The terms that admit all who claim an address, or, to deny, any of them."""

        def admits(bit: Bit) -> bool:
            found = [bit.term.admits_identity(who) for who in claim]
            return any(found) if bit.policy.action is Action.DENY else all(found)

        return sum(1 << index for index, bit in enumerate(self.bits) if admits(bit))


def _packed(mask: int) -> bytes:
    return Row(tuple(mask >> 64 * word & (1 << 64) - 1 for word in range(ROW_WORDS))).pack()


def mapped(address: IPAddress) -> bytes:
    """16 bytes; an IPv4 address is written ::ffff:a.b.c.d."""
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def identity_number(claim: Claim) -> int:
    """Stands for who an address may be; 0 for someone outside the mesh."""
    if claim <= {None}:
        return 0
    names = sorted(who.principal if who else "" for who in claim)
    return int.from_bytes(blake2b("\n".join(names).encode(), digest_size=8).digest(), "big") or 1


def kind_of(policy: Policy) -> Kind:
    if policy.dry_run:
        return Kind.DRY_RUN
    return Kind.DENY if policy.action is Action.DENY else Kind.ALLOW


class PolicySet:
    """Policies compiled for a destination; what has the same number has the same rows.

    Args:
        policies: those that apply.
        destination: the address that they guard.
        sides: where several are at the destination, and who allows is not the same for all of them: for each
            the keys of the policies that allow. Each of them must let a connection in.

    Attributes:
        number: a digest of the terms.
        policies: their keys: `kmesh_hit.policy` is a place in this list, from 1 on.
        problems: the keys of policies that do not fit, with the reason. Nobody passes by them:
            an allow policy of these allows nobody, a deny policy refuses everyone.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        destination: IPAddress,
        sides: Sequence[Collection[str]] = (),
    ) -> None:
        ordered = sorted(policies, key=lambda policy: (kind_of(policy), policy.key))
        self.policies = [policy.key for policy in ordered]
        self.problems: dict[str, str] = {}
        self.rows: list[RowTerms] = []
        self._flags = Flag(0)
        for kind in Kind:
            found = [one for one in ordered if kind_of(one) is kind]
            self._fill(kind, found, destination, sides if kind is Kind.ALLOW else ())
        bits = [bit for row in self.rows for bit in row.bits]
        if any(bit.term.asks_identity for bit in bits):
            self._flags |= Flag.BY_IDENTITY
        if any(bit.term.blocks for bit in bits):
            self._flags |= Flag.BY_SOURCE
        shape = [(row.kind, [(bit.policy.key, bit.term) for bit in row.bits]) for row in self.rows]
        text = repr((int(self._flags), self.policies, shape)).encode()
        self.number = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
        self._anybody = {row.number: row.identities(frozenset({_ANYBODY})) for row in self.rows}

    def _fill(
        self,
        kind: Kind,
        policies: Sequence[Policy],
        destination: IPAddress,
        sides: Sequence[Collection[str]],
    ) -> None:
        if kind is Kind.ALLOW and policies:
            self._flags |= Flag.HAS_ALLOW
        bits: list[Bit] = []
        room = (ROWS - len(self.rows)) * ROW_TERMS
        for policy in policies:
            try:
                found = terms_of(policy, destination)
            except PolicyTooLargeError as error:
                self._refuse(kind, policy, str(error))
                continue
            if len(bits) + len(found) > room:
                limit = ROWS * ROW_TERMS
                reason = f"the policies of one destination come to more than {limit} conditions"
                self._refuse(kind, policy, reason)
                continue
            bits += [Bit(term, policy) for term in found]
        if sides:
            bits = self._of_all(bits, sides, room)
        for start in range(0, len(bits), ROW_TERMS):
            chunk = tuple(bits[start : start + ROW_TERMS])
            self.rows.append(RowTerms(len(self.rows), kind, chunk))

    def _of_all(
        self, bits: Sequence[Bit], sides: Sequence[Collection[str]], room: int
    ) -> list[Bit]:
        """What a term of each side says together, as a term of the first one's policy."""
        each = [[bit for bit in bits if bit.policy.key in side] for side in sides]
        if prod(map(len, each)) > room:
            for policy in {bit.policy.key: bit.policy for bit in bits}.values():
                reason = (
                    f"with those of others at its address it comes to more than {room} conditions"
                )
                self._refuse(Kind.ALLOW, policy, reason)
            return []
        made: dict[Term, Bit] = {}
        for chosen in product(*each):
            term = all_of(bit.term for bit in chosen)
            made.setdefault(term, Bit(term, chosen[0].policy))
        return list(made.values())

    def _refuse(self, kind: Kind, policy: Policy, reason: str) -> None:
        self.problems[policy.key] = reason
        if kind is Kind.DENY:
            self._flags |= Flag.CLOSED

    @property
    def guard(self) -> bytes:
        """The value that puts a destination under this set."""
        kinds = sum(row.kind << 2 * row.number for row in self.rows)
        return Guard(self.number, kinds, int(self._flags)).pack()

    def elements(self) -> Iterator[Element]:
        """Everything but the rows of identities."""
        for row in self.rows:
            yield from self._ports(row)
            if Flag.BY_SOURCE in self._flags:
                yield from self._blocks(row)
            if Flag.BY_IDENTITY in self._flags:
                yield self._row(row, RowKind.ANY_IDENTITY, 0, self._anybody[row.number])
                nobody = row.identities(frozenset({None}))
                yield self._row(row, RowKind.NO_IDENTITY, 0, nobody)
        yield from self._hits()

    def identity_elements(self, claim: Claim) -> Iterator[Element]:
        """The rows of an identity, where they differ from everybody's in the mesh."""
        number = identity_number(claim)
        if not number or Flag.BY_IDENTITY not in self._flags:
            return
        for row in self.rows:
            mask = row.identities(claim)
            if mask != self._anybody[row.number]:
                yield self._row(row, RowKind.IDENTITY, number, mask)

    def _row(self, row: RowTerms, kind: RowKind, value: int, mask: int) -> Element:
        return "policy_rows", RowKey(self.number, value, row.number, kind).pack(), _packed(mask)

    def _ports(self, row: RowTerms) -> Iterator[Element]:
        base = row.mask(lambda term: term.admits_port(None))
        yield self._row(row, RowKind.ANY_PORT, 0, base)
        for port, places in sorted(row.naming(lambda term: term.ports).items()):
            mask = row.varied(base, places, partial(Term.admits_port, port=port))
            yield self._row(row, RowKind.PORT, port, mask)

    def _blocks(self, row: RowTerms) -> Iterator[Element]:
        """A row for each block: of an address in it and in no smaller one."""
        base = row.mask(lambda term: term.admits_source(frozenset()))
        naming = row.naming(lambda term: term.blocks)
        for block in dict.fromkeys((*_ROOTS, *filter(_can_hold, naming))):
            wider = (block.supernet(new_prefix=length) for length in range(block.prefixlen + 1))
            inside = {one for one in wider if one in naming}
            places = {place for one in inside for place in naming[one]}
            mask = row.varied(base, places, partial(Term.admits_source, inside=inside))
            length = block.prefixlen + (96 if block.version == 4 else 0)
            address = mapped(block.network_address)
            key = BlockKey(BLOCK_FIXED_BITS + length, row.number, self.number, address)
            yield "policy_blocks", key.pack(), _packed(mask)

    def _hits(self) -> Iterator[Element]:
        place = {key: index for index, key in enumerate(self.policies, 1)}
        for row in self.rows:
            for index, bit in enumerate(row.bits):
                word = row.number * ROW_WORDS + index // 64
                key = HitKey(self.number, 1 << index % 64, word)
                yield "policy_hits", key.pack(), Hit(0, place[bit.policy.key]).pack()
        for word in (NO_TERM_ALLOWS, ALL_REFUSED):
            yield "policy_hits", HitKey(self.number, 0, word).pack(), Hit(0, 0).pack()


def _can_hold(block: IPNetwork) -> bool:
    """Mapped IPv6 addresses are on no wire; in the tables they stand for IPv4 ones."""
    return isinstance(block, IPv4Network) or not block.subnet_of(_MAPPED)
