# SPDX-License-Identifier: Apache-2.0
"""bpf/authorize/authorize.bpf.c in Python, over dictionaries; and random policies to try it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network

from hypothesis import strategies as st

from runtime.model.mesh import IPAddress
from runtime.model.policy import (
    Action,
    Match,
    Policy,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from runtime.tables.ops import Op
from runtime.tables.policies import TABLES
from runtime.tables.policy_layout import (
    AddressKey,
    BlockKey,
    Guard,
    Hit,
    HitKey,
    Identity,
    Row,
    RowKey,
)
from runtime.tables.policy_set import (
    ALL_REFUSED,
    BLOCK_FIXED_BITS,
    NO_TERM_ALLOWS,
    ROW_WORDS,
    ROWS,
    Flag,
    Kind,
    RowKind,
)

_LOGGED = 8


def packed(address: IPAddress) -> bytes:
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def _bits(data: bytes, count: int) -> int:
    return int.from_bytes(data, "big") >> 8 * len(data) - count


@dataclass(frozen=True, slots=True)
class Verdict:
    """`counted`: keys of the policies that were counted; "" for "no term allows"."""

    passes: bool
    counted: tuple[int, ...] = ()


class Maps:
    """The authorization maps as dictionaries."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}

    def run(self, ops: Iterable[Op]) -> None:
        for op in ops:
            self.step(op)

    def step(self, op: Op) -> None:
        table = self.tables[op.table]
        if op.value is None:
            del table[op.key]
        else:
            assert table.get(op.key) != op.value, "written without need"
            table[op.key] = op.value

    def _row(self, set_: int, number: int, kind: RowKind, value: int = 0) -> Row | None:
        found = self.tables["policy_rows"].get(RowKey(set_, value, number, kind).pack())
        return Row.unpack(found) if found else None

    def _source_row(self, set_: int, number: int, source: bytes) -> Row | None:
        best: tuple[int, bytes] | None = None
        for key, value in self.tables["policy_blocks"].items():
            block = BlockKey.unpack(key)
            length = block.prefix_length - BLOCK_FIXED_BITS
            fits = (block.set, block.number) == (set_, number)
            if fits and _bits(block.address, length) == _bits(source, length):
                best = max(best or (-1, b""), (length, value))
        return Row.unpack(best[1]) if best else None

    def _hit(self, set_: int, word: int, bit: int, last: int | None) -> int | None:
        found = self.tables["policy_hits"].get(HitKey(set_, bit, word).pack())
        assert found is not None, "a term that cannot be counted"
        policy = Hit.unpack(found).policy
        return None if policy == last else policy

    def _walk(
        self, guard: Guard, number: int, kind: Kind, *, source: bytes, port: int, who: int
    ) -> tuple[bool, list[int]]:
        """Whether a term matches, and what is counted."""
        ports = self._row(guard.set, number, RowKind.PORT, port)
        ports = ports or self._row(guard.set, number, RowKind.ANY_PORT)
        identities = sources = ports
        if guard.flags & Flag.BY_IDENTITY:
            identities = self._row(guard.set, number, RowKind.IDENTITY, who) if who else None
            other = RowKind.ANY_IDENTITY if who else RowKind.NO_IDENTITY
            identities = identities or self._row(guard.set, number, other)
        if guard.flags & Flag.BY_SOURCE:
            sources = self._source_row(guard.set, number, source)
        assert ports
        assert identities
        assert sources
        counted: list[int] = []
        for index in range(ROW_WORDS):
            terms = ports.words[index] & identities.words[index] & sources.words[index]
            word = number * ROW_WORDS + index
            last = None
            for _ in range(_LOGGED if kind is Kind.DRY_RUN else 1):
                if not terms:
                    break
                policy = self._hit(guard.set, word, terms & -terms, last)
                if policy is not None:
                    counted.append(policy)
                    last = policy
                terms &= terms - 1
            if counted and kind is not Kind.DRY_RUN:
                return True, counted
        return False, counted

    def judge(self, source: IPAddress, destination: IPAddress, port: int) -> Verdict:
        raw = self.tables["guards"].get(AddressKey(packed(destination)).pack())
        if raw is None or source == destination:
            return Verdict(passes=True)
        guard = Guard.unpack(raw)
        found = self.tables["identities"].get(AddressKey(packed(source)).pack())
        who = Identity.unpack(found) if found else Identity(0, 0)
        if who.flags:
            return Verdict(passes=True)
        if guard.flags & Flag.CLOSED:
            assert HitKey(guard.set, 0, ALL_REFUSED).pack() in self.tables["policy_hits"]
            return Verdict(passes=False)
        passes, decided, counted = not guard.flags & Flag.HAS_ALLOW, False, []
        for number in range(ROWS):
            kind = guard.rows >> 2 * number & 3
            if not kind:
                break
            if kind != Kind.DRY_RUN and decided:
                continue
            match, more = self._walk(
                guard, number, Kind(kind), source=packed(source), port=port, who=who.identity
            )
            counted += more
            if match:
                passes, decided = kind == Kind.ALLOW, True
        if not passes and not decided:
            assert HitKey(guard.set, 0, NO_TERM_ALLOWS).pack() in self.tables["policy_hits"]
        return Verdict(passes=passes, counted=tuple(counted))

    def sizes(self) -> Counter[str]:
        return Counter({name: len(table) for name, table in self.tables.items()})


# Random policies over a small world, so that they meet.

NAMESPACES = ("shop", "bank", "shopping")
ACCOUNTS = ("web", "db")
PORTS = (80, 8080, 443)
BLOCKS = (
    "10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "10.0.0.128/25", "0.0.0.0/0",
    "fd00::/8", "fd00::1/128", "::/0", "fd00:0:0:1::/64", "::ffff:10.0.0.0/104",
)  # fmt: skip
ADDRESSES = tuple(
    map(ip_address, ("10.0.0.1", "10.0.0.200", "10.9.9.9", "192.0.2.1", "fd00::1", "2001:db8::1"))
)
_TEXTS = (*NAMESPACES, "", "s", "cluster.local/ns/shop/sa/web", "td2/", "/sa/web", "shop/sa/web")

strings = st.builds(StringMatch, st.sampled_from(StringKind), st.sampled_from(_TEXTS))
accounts = st.builds(ServiceAccountMatch, st.sampled_from(NAMESPACES), st.sampled_from(ACCOUNTS))
blocks = st.sampled_from(BLOCKS).map(ip_network)


def _few(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.just(()), st.just(()), st.lists(values, max_size=3).map(tuple))


matches = st.builds(
    Match,
    namespaces=_few(strings),
    not_namespaces=_few(strings),
    principals=_few(strings),
    not_principals=_few(strings),
    service_accounts=_few(accounts),
    not_service_accounts=_few(accounts),
    source_ips=_few(blocks),
    not_source_ips=_few(blocks),
    destination_ips=_few(blocks),
    not_destination_ips=_few(blocks),
    destination_ports=_few(st.sampled_from(PORTS)),
    not_destination_ports=_few(st.sampled_from(PORTS)),
    unreadable=st.sampled_from([(), (), (), ("field 99",)]),
)
rules = st.lists(matches, max_size=3).map(tuple)
groups = st.lists(rules, max_size=3).map(tuple)


def policies(name: str) -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        name=st.just(name),
        namespace=st.sampled_from(["istio-system", *NAMESPACES[:2]]),
        scope=st.sampled_from(PolicyScope),
        action=st.sampled_from(Action),
        groups=st.lists(groups, max_size=3).map(tuple),
        dry_run=st.sampled_from([False, False, True]),
    )
