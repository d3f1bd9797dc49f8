# SPDX-License-Identifier: Apache-2.0
"""Who the workloads of this node are, as a waypoint is told: TLVs of the PROXY protocol.

The block has one size, so that the program copies it without looking inside: the identity in a TLV
of type 0xD0, as ztunnel sends it, then a NOOP that fills the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runtime.model.mesh import NetworkMode, Workload
from runtime.tables.endpoints import pack_address
from runtime.tables.layout import SourceKey, SourceTlvs
from runtime.tables.ops import Op
from runtime.tables.place import Place
from runtime.tables.problems import Problems

TABLE = "source_tlvs"
_SIZE = 256
_IDENTITY, _NOOP = 0xD0, 0x04
_HEAD = 3  # type, length


def identity(workload: Workload) -> str:
    """The workload's SPIFFE ID."""
    trust = workload.trust_domain or "cluster.local"
    return f"spiffe://{trust}/ns/{workload.namespace}/sa/{workload.service_account}"


def pack_tlvs(text: str) -> bytes | None:
    """The block for an identity; None when it is too long for it."""
    name = text.encode()
    rest = _SIZE - _HEAD - len(name) - _HEAD
    if rest < 0:
        return None
    first = bytes([_IDENTITY]) + len(name).to_bytes(2, "big") + name
    return first + bytes([_NOOP]) + rest.to_bytes(2, "big") + bytes(rest)


# A waypoint is told nothing by it; the gate knows that there is somebody, and refuses what depends on who.
NAMELESS = bytes([_NOOP]) + (_SIZE - _HEAD).to_bytes(2, "big") + bytes(_SIZE - _HEAD)


class Identities:
    """The identities in the kernel, by address; those of this node's workloads only.

    Args:
        installed: what the kernel holds.
        place: this node; without its name there are no identities.
        problems: where those that do not fit are reported.
    """

    def __init__(
        self, installed: Mapping[bytes, bytes], *, place: Place, limit: int, problems: Problems
    ) -> None:
        self._installed = dict(installed)
        self._place = place
        self._limit = limit
        self._problems = problems
        self._unclaimed = set(installed)
        self._claims: dict[bytes, dict[str, bytes]] = {}  # by address and workload
        self._touched: dict[bytes, None] = {}
        self._ops: list[Op] = []

    def __len__(self) -> int:
        return len(self._installed)

    def _is_here(self, workload: Workload | None) -> bool:
        return workload is not None and workload.node == self._place.node != ""

    def _claimed(self, workload: Workload | None) -> Iterator[tuple[bytes, bytes]]:
        """The addresses that a workload has, and what it would have waypoints told: b"" for nothing."""
        if workload is None or not self._is_here(workload):
            return
        packed = b""
        # The node's own address is many workloads': it is nobody's.
        if workload.service_account and workload.network_mode is not NetworkMode.HOST_NETWORK:
            tlvs = pack_tlvs(identity(workload))
            if tlvs is None:
                reason = "its identity is too long to be told to a waypoint"
                self._problems.add(workload.uid, "identity", reason)
            packed = SourceTlvs(tlvs or NAMELESS).pack()
        for address in workload.addresses:
            yield SourceKey(pack_address(address)).pack(), packed

    def move(self, uid: str, before: Workload | None, after: Workload | None) -> None:
        """One workload changed."""
        self._problems.clear(uid, "identity")
        if not (self._is_here(before) or self._is_here(after)):
            return  # as nearly all of 100,000
        old, new = dict(self._claimed(before)), dict(self._claimed(after))
        for key in {**old, **new}:
            self._claims.setdefault(key, {}).pop(uid, None)
            self._problems.clear(uid, _topic(key))
            if key in new:
                self._claims[key][uid] = new[key]
            self._touched[key] = None
            self._unclaimed.discard(key)

    def _settle(self, key: bytes) -> None:
        """What all who have an address agree on is told of it; else nobody vouches for anyone."""
        claims = self._claims[key]
        if not claims:
            del self._claims[key]
        agreed = set(claims.values())
        for uid, value in claims.items():
            self._problems.clear(uid, _topic(key))
            if value and len(agreed) > 1:
                reason = "shares an address with another workload: waypoints are told no identity"
                self._problems.add(uid, _topic(key), reason)
        value = agreed.pop() if len(agreed) == 1 else b""
        if not value:
            self._remove(key, "")
        elif self._installed.get(key) != value:
            self._install(key, value, next(iter(claims)))

    def _install(self, key: bytes, value: bytes, uid: str) -> None:
        if key not in self._installed and len(self._installed) >= self._limit:
            reason = f"its identity does not fit: the table holds {self._limit}"
            self._problems.add(uid, "identity", reason)
            return
        self._installed[key] = value
        self._ops.append(Op(TABLE, key, value, uid))

    def _remove(self, key: bytes, uid: str) -> None:
        if self._installed.pop(key, None) is not None:
            self._ops.append(Op(TABLE, key, None, uid))

    def drop_unclaimed(self) -> None:
        """What an earlier process left and nobody has claimed goes."""
        for key in self._unclaimed:
            self._remove(key, "")
        self._unclaimed = set()

    def flush(self) -> list[Op]:
        """What to write and remove since the last time: one operation an address at most."""
        for key in self._touched:
            self._settle(key)
        self._touched = {}
        ops, self._ops = self._ops, []
        return ops


def _topic(key: bytes) -> str:
    return f"identity {key.hex()}"
