# SPDX-License-Identifier: Apache-2.0
"""Writes to maps of maps: each waits for a grace period of RCU, so they are made at once, and share it.

The kernel waits at the end of a call (`maybe_wait_bpf_programs`). Maps of maps take batches since 5.19,
which wait for each element until 6.8, and once since. Who waits beside others waits no longer than they do: so
each thread has a part, as a batch, or one by one where there are none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap

THREADS = 32


class Write(NamedTuple):
    """An element of a map of maps to be written; `fd` of the inner map is None for a removal."""

    outer: BpfMap
    key: bytes
    fd: int | None


def write_at_once(writes: Iterable[Write]) -> dict[tuple[str, bytes], BpfError]:
    """Carry out all writes, in no order.

    Returns:
        the kernel's reason for those that failed, by map and key; the others are done.
    """
    parts = _parts(list(writes))
    if len(parts) <= 1:
        results = [_write(part) for part in parts]
    else:
        with ThreadPoolExecutor(len(parts)) as threads:
            results = list(threads.map(_write, parts))
    return {where: error for failed in results for where, error in failed.items()}


def _parts(writes: Sequence[Write]) -> list[list[Write]]:
    """At most as many as there are threads, or kinds of calls: what one call can do is of one kind."""
    kinds: dict[tuple[int, bool], list[Write]] = {}
    for one in writes:
        kinds.setdefault((one.outer.fd, one.fd is None), []).append(one)
    each = max(1, -(-len(writes) // max(1, THREADS - len(kinds))))
    return [kind[at : at + each] for kind in kinds.values() for at in range(0, len(kind), each)]


def _write(part: Sequence[Write]) -> dict[tuple[str, bytes], BpfError]:
    """What of a part fails."""
    outer, keys = part[0].outer, b"".join(one.key for one in part)
    try:
        if len(part) == 1:
            _write_one(part[0])
        elif part[0].fd is None:
            outer.delete_batch(keys)
        else:
            outer.update_batch(keys, b"".join(_value(one.fd) for one in part if one.fd is not None))
    except BpfError as error:
        if len(part) == 1:
            return {(outer.name, keys): error}
        # What was done already is done again.
        return {where: why for one in part for where, why in _write([one]).items()}
    return {}


def _write_one(one: Write) -> None:
    if one.fd is None:
        one.outer.delete(one.key)
    else:
        one.outer.update(one.key, _value(one.fd))


def _value(fd: int) -> bytes:
    return fd.to_bytes(4, sys.byteorder)
