# SPDX-License-Identifier: Apache-2.0
"""What the enhanced path holds at a moment, so that it can be seen whether all of it comes back."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.bpf.lib import lib
from runtime.bpf.maps import BpfMap
from runtime.tables.enhanced_layout import Pool, Upstream
from tests.dataplane.enhanced_stage import Stage
from tests.dataplane.world import wait_for

_SLOT = struct.Struct("=I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Elements of maps by what they are for.

    Attributes:
        free: slots that a new connection may get.
        waiting: connections that the gate has not accepted.
        pools: endpoints with a number.
        idle: connections that the kernel may take.
        unread: sockets of the gate's that it has not asked for.
        upstreams: connections to endpoints, as the kernel sees them.
        sessions: as the gate counts them.
        busy: connections to endpoints that the gate counts as in use.
        under_way: requests to endpoints, as they are counted for whoever wants the less busy one.
    """

    free: int
    waiting: int
    pools: int
    idle: int
    unread: int
    upstreams: int
    sessions: int
    busy: int
    under_way: int


def _free(queue: BpfMap) -> int:
    """Every element is taken out and put back; nobody may connect meanwhile.

    Raises:
        AssertionError: a slot is free twice, which two connections would then have.
    """
    found: list[bytes] = []
    value = ctypes.create_string_buffer(_SLOT.size)
    while not lib().bpf_map_lookup_and_delete_elem(queue.fd, None, value):
        found.append(value.raw)
    for slot in found:
        queue.update(None, slot)
    assert len(set(found)) == len(found), "a slot is free twice"
    return len(found)


def _count(maps: Mapping[str, BpfMap], name: str) -> int:
    return sum(1 for _ in maps[name].items())


def _under_way(maps: Mapping[str, BpfMap]) -> int:
    """Where a number is nobody's, its count begins anew when it is given."""
    values = (maps["pools"].lookup(number) for _, number in maps["pool_numbers"].items())
    return sum(Pool.unpack(value).busy for value in values if value)


def take(stage: Stage) -> Ledger:
    maps, status = stage.path.maps, stage.status()
    open_ones = sum(
        Upstream.unpack(value).cookie != 0 for _, value in maps["gate_upstreams"].items()
    )
    return Ledger(
        free=_free(maps["free_slots"]),
        waiting=_count(maps, "gate_sessions"),
        pools=_count(maps, "pool_numbers"),
        idle=_count(maps, "idle"),
        unread=_count(maps, "upstream_socks"),
        upstreams=open_ones,
        sessions=status["sessions"],
        busy=status["busy"],
        under_way=_under_way(maps),
    )


def expect(stage: Stage, wanted: Ledger) -> None:
    """Wait until all is as it was: slots rest for seconds before they are free again."""
    found: list[Ledger] = []

    def same() -> bool:
        found[:] = [take(stage)]
        return found[0] == wanted

    try:
        wait_for(same, "everything has come back")
    except AssertionError:
        before, after = asdict(wanted), asdict(found[0])
        changed = {
            name: (before[name], after[name]) for name in before if before[name] != after[name]
        }
        raise AssertionError(f"did not come back (before, after): {changed}") from None


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
