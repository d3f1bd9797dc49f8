# SPDX-License-Identifier: Apache-2.0
"""Route tables into the kernel, one after the other, and the ports that follow them.

A port that has routes is never left without an element: its connections would go to any endpoint, past all
routes. Where its table does not go in, it keeps the one that it has; where it has none, it is shut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from runtime.control.http_standing import PortKey, Standing, Standings, standing_of
from runtime.errors import KmeshError
from runtime.kernel.http_ports import HttpPorts, Written, shut
from runtime.model.mesh import IPAddress
from runtime.plan.kernel_table import KernelTable, unroutable
from runtime.plan.planned import PlannedPort
from runtime.tables.http_routes import TableTooLargeError

Where = tuple[IPAddress, int]
_T = TypeVar("_T")
_SWEEPS = 16  # in one go: each looks at all that is there
_NAMED = 3  # ports in one line


@dataclass(frozen=True, slots=True)
class Held:
    """A table in the kernel, and what it was made of."""

    planned: PlannedPort
    table: KernelTable
    by_gate: frozenset[str]  # clusters among whose endpoints the kernel cannot choose
    written: Written
    standing: Standing


class TableWriter:
    """Keeps tables, and the ports that follow them, in step with what is planned; for one thread at a time.

    Args:
        ports: the maps.

    Attributes:
        held: the tables in the kernel that this process has written.
        is_behind: something may go in at another attempt.
        standings: what became of each table that is planned; another thread may read it.
        without_waypoint: tables of which some routes take a waypoint, and some port has none of its own.
        leaves: some port follows a table that is not held: of a daemon before, or of another name.
    """

    def __init__(self, ports: HttpPorts) -> None:
        self._ports = ports
        self.held: dict[PortKey, Held] = {}
        self.standings: Standings = {}
        self.without_waypoint: set[PortKey] = set()
        self.is_behind = self.leaves = False
        self._wanted: set[bytes] = set()  # ports that have routes
        self._kept: set[bytes] = set()  # of these, those that are to have an element
        self._sweeps_left = 0
        self._has_pointed = False

    @property
    def clusters(self) -> frozenset[str]:
        """Those that the tables lead to."""
        return frozenset().union(*(one.table.clusters for one in self.held.values()))

    def table_of(self, key: PortKey, planned: PlannedPort) -> KernelTable | None:
        """What was made of the very same plan."""
        held = self.held.get(key)
        return held.table if held and held.planned == planned else None

    def bring(
        self,
        tables: Mapping[PortKey, KernelTable],
        places: Mapping[Where, PlannedPort],
        by_gate: Collection[str],
        failed: dict[str, str],
    ) -> None:
        """Write the tables, and point the ports at them: each when its own is there.

        Args:
            tables: by key.
            places: the ports, all that have routes; others lose theirs.
            by_gate: clusters among whose endpoints the kernel cannot choose.
            failed: gets what is not as it should be, by resource, with the reason.

        Raises:
            BpfError: what nobody follows any more cannot be removed.
        """
        before, self.held = self.held, {}
        self.is_behind = self.leaves = False
        self._wanted = {self._ports.key_of(*where) for where in places}
        self._sweeps_left, self._has_pointed = _SWEEPS, True
        at: dict[PortKey, dict[Where, PlannedPort]] = {}
        for where, planned in places.items():
            at.setdefault(key_of(planned), {})[where] = planned
        self._kept = set()
        self.without_waypoint = set()
        standings: dict[PortKey, Standing] = {}
        for key, table in tables.items():
            planned = list(at[key].values())[-1]
            held, why = before.get(key), ""
            choosing = table.clusters.intersection(by_gate)
            if held and not self._ports.is_there(held.written) and self._leads(at[key], held):
                held = None  # it was swept, as no port followed it
            if held is None or held.table is not table or held.by_gate != choosing:
                made, why = self._write(planned, table, choosing)
                held = made or held
            if held is not None:
                self.held[key] = held
            closed = self._point(key, at[key], held, why, failed)
            standings[key] = _standing(held, why, closed, of=len(at[key]))
            if standings[key].trouble:
                failed[f"route table {planned.port.table}"] = standings[key].trouble
            self.is_behind |= bool(why)
        self.standings = standings
        self._ports.keep_ports(self._kept)
        self._ports.sweep()

    def _write(
        self, planned: PlannedPort, table: KernelTable, by_gate: frozenset[str]
    ) -> tuple[Held | None, str]:
        """The table in the kernel; or None and why it is not there."""
        try:
            try:
                written, trouble = self._put(table, by_gate), ""
            except TableTooLargeError as error:
                table = unroutable(planned, str(error))
                trouble = f"{error}: all of it is the waypoint's"
                written = self._put(table, by_gate)
            standing = standing_of(table.table, written, trouble=trouble, shut=bool(trouble))
            return Held(planned, table, by_gate, written, standing), ""
        except KmeshError as error:
            return None, str(error)

    def _put(self, table: KernelTable, by_gate: frozenset[str]) -> Written:
        return self._with_room(
            lambda: self._ports.write(table.table, governs=table.port, gate_chooses=by_gate)
        )

    def _with_room(self, action: Callable[[], _T]) -> _T:
        """Do something, and again when something was removed that nobody needs any more."""
        try:
            return action()
        except KmeshError:
            if not (self._has_pointed and self._sweeps_left):
                raise
            self._sweeps_left -= 1
            self._has_pointed = False
            # Every table that is needed has its ports already, or kept those that they had.
            self._ports.keep_ports(self._wanted)
            self._ports.sweep(in_haste=True)
            return action()

    def _leads(self, wheres: Collection[Where], held: Held) -> bool:
        """Whether a port is to follow a table, and not led to a waypoint as a whole."""
        whole = held.table.is_all_waypoint
        return not (whole and all(self._ports.waypoint_of(*where) for where in wheres))

    def _point(
        self,
        key: PortKey,
        wheres: Collection[Where],
        held: Held | None,
        why: str,
        failed: dict[str, str],
    ) -> list[Where]:
        """Point ports at their table, or shut those that would have none; which these are."""
        closed: list[Where] = []
        for address, port in wheres:
            written = held.written if held else None
            if written is None and not self._ports.has_table(address, port):
                written = shut(why)
                closed.append((address, port))
            if written is None:  # of a daemon before, or by another name: it serves on
                self.leaves = True
                self._kept.add(self._ports.key_of(address, port))
                continue
            needed = written.waypoint or written.partly
            waypoint = self._ports.waypoint_of(address, port) if needed else 0
            if written.waypoint and not waypoint:
                self.without_waypoint.add(key)
            if waypoint and (held is None or held.table.is_all_waypoint):
                continue  # the kernel leads the whole connection there
            self._kept.add(self._ports.key_of(address, port))
            self._follow(address, port, written, waypoint, failed)
        return closed

    def _follow(
        self, address: IPAddress, port: int, written: Written, waypoint: int, failed: dict[str, str]
    ) -> None:
        try:
            try:
                self._ports.point(address, port, written, waypoint=waypoint)
            except KmeshError:
                # No sweep: what was just written is pointed at by nobody yet.
                self._ports.keep_ports(self._wanted)
                self._ports.point(address, port, written, waypoint=waypoint)
            self._has_pointed = True
        except KmeshError as error:
            self.is_behind = True
            failed[f"HTTP port {address}:{port}"] = f"{error}{self._refuse(address, port)}"

    def _refuse(self, address: IPAddress, port: int) -> str:
        """Refuse connections to a port that follows nothing; what to say of it."""
        try:
            refused = self._ports.refuse(address, port)
        except KmeshError as error:
            return f"; its connections cannot be refused: {error}"
        return "; connections to it are refused meanwhile" if refused else ""


def key_of(planned: PlannedPort) -> PortKey:
    return planned.port.listener, planned.port.table


def _standing(held: Held | None, why: str, closed: list[Where], *, of: int) -> Standing:
    if not why:
        assert held is not None
        return held.standing
    if not closed:
        return Standing(trouble=f"{why}; what it said before keeps serving")
    names = ", ".join(f"{address} port {port}" for address, port in closed[:_NAMED])
    more = f" and {len(closed) - _NAMED} more" if len(closed) > _NAMED else ""
    rest = "" if len(closed) == of else "; for other ports what it said before keeps serving"
    told = f"{why}; until there is room all of {names}{more} is the waypoint's{rest}"
    return Standing(trouble=told, shut=True)
