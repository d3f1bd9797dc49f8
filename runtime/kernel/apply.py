# SPDX-License-Identifier: Apache-2.0
"""Carrying operations out: in batches, in their order; what fails is named and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.errors import KmeshError
from runtime.tables.ops import Op

_NAMED = 3


class ApplyError(KmeshError):
    """Some operations failed; all that do not depend on them were carried out.

    Attributes:
        failed: the kernel's reason by resource.
    """

    def __init__(self, failed: Mapping[str, str]) -> None:
        named = [f"{resource}: {reason}" for resource, reason in list(failed.items())[:_NAMED]]
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        super().__init__("; ".join(named) + more)
        self.failed = dict(failed)


def apply_ops(maps: Mapping[str, BpfMap], ops: Iterable[Op]) -> None:
    """Carry operations out in their order.

    Args:
        maps: open maps by the name that operations call them.
        ops: from `ServiceTables.apply`.

    Raises:
        ApplyError: some failed. Later operations for the same resource were left out, so that
            nothing points at what is not there.
    """
    failed: dict[str, str] = {}
    for (table, is_removal), group in groupby(ops, key=lambda op: (op.table, op.value is None)):
        wanted = [op for op in group if op.resource not in failed]
        if not wanted:
            continue
        try:
            _batch(maps[table], wanted, is_removal=is_removal)
        except BpfError:
            _one_by_one(maps[table], wanted, failed)
    if failed:
        raise ApplyError(failed)


def _batch(table: BpfMap, ops: Sequence[Op], *, is_removal: bool) -> None:
    keys = b"".join(op.key for op in ops)
    if is_removal:
        table.delete_batch(keys)
    else:
        table.update_batch(keys, b"".join(op.value for op in ops if op.value is not None))


def _one_by_one(table: BpfMap, ops: Sequence[Op], failed: dict[str, str]) -> None:
    """Find out which operations of a batch fail; what was done already is done again."""
    for op in ops:
        if op.resource in failed:
            continue
        try:
            if op.value is None:
                table.delete(op.key)
            else:
                table.update(op.key, op.value)
        except BpfError as error:
            failed[op.resource] = str(error)
