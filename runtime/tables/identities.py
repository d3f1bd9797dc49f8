# SPDX-License-Identifier: Apache-2.0
"""Who the workloads of this node are, as a waypoint is told: TLVs of the PROXY protocol.

The block has one size, so that the program copies it without looking inside: the identity in a TLV
of type 0xD0, as ztunnel sends it, then a NOOP that fills the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runtime.model.mesh import Workload
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
        self._ops: list[Op] = []

    def __len__(self) -> int:
        return len(self._installed)

    def _is_here(self, workload: Workload | None) -> bool:
        return workload is not None and workload.node == self._place.node != ""

    def _wanted(self, workload: Workload | None) -> Iterator[tuple[bytes, bytes]]:
        if workload is None or not self._is_here(workload) or not workload.service_account:
            return
        packed = pack_tlvs(identity(workload))
        if packed is None:
            reason = "its identity is too long to be told to a waypoint"
            self._problems.add(workload.uid, "identity", reason)
            return
        for address in workload.addresses:
            yield SourceKey(pack_address(address)).pack(), SourceTlvs(packed).pack()

    def move(self, uid: str, before: Workload | None, after: Workload | None) -> None:
        """One workload changed."""
        self._problems.clear(uid, "identity")
        if not (self._is_here(before) or self._is_here(after)):
            return  # as nearly all of 100,000
        old, new = dict(self._wanted(before)), dict(self._wanted(after))
        for key in old.keys() - new.keys():
            self._remove(key, uid)
        for key, value in new.items():
            self._unclaimed.discard(key)
            if self._installed.get(key) == value:
                continue
            if key not in self._installed and len(self._installed) >= self._limit:
                reason = f"its identity does not fit: the table holds {self._limit}"
                self._problems.add(uid, "identity", reason)
                continue
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
        ops, self._ops = self._ops, []
        return ops
