# SPDX-License-Identifier: Apache-2.0
"""Route tables into the kernel, many at a time, and the ports that follow them.

Each time the kernel takes tables it waits for what runs there. So tables are made first, then all are shown at
once, then ports are pointed at them. Only what does not go in this way goes one by one.

A port that has routes is never left without an element: its connections would go to any endpoint, past all
routes. Where its table does not go in, it keeps the one that it has; where it has none, or one by rules that are not
those of now, it is shut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from runtime.control.http_held import Held
from runtime.control.http_standing import PortKey, Standing, Standings, standing_of
from runtime.errors import KmeshError
from runtime.kernel.http_ports import HttpPorts, Written, shut
from runtime.model.mesh import IPAddress
from runtime.plan.guards import Guarding
from runtime.plan.kernel_table import KernelTable, unroutable
from runtime.plan.planned import PlannedPort
from runtime.tables.http_routes import TableTooLargeError

Where = tuple[IPAddress, int]
_SWEEPS = 16  # in one go: each looks at all that is there
_NAMED = 3  # ports in one line


@dataclass(slots=True)
class _Begun:
    """A table on its way into the kernel.

    Attributes:
        held: what is there of it, until `made` is.
        why: it did not go in.
        trouble: why something else stands for it: it cannot be expressed.
        is_unsafe: what is held lets in whom the rules of now do not.
    """

    key: PortKey
    planned: PlannedPort
    table: KernelTable
    by_gate: frozenset[str]
    held: Held | None
    guarding: Mapping[str, Guarding]
    is_unsafe: bool
    made: Written | None = None
    why: str = ""
    trouble: str = ""

    def now(self) -> Held | None:
        """What is in the kernel."""
        if self.made is None:
            return self.held
        standing = standing_of(
            self.table.table, self.made, trouble=self.trouble, shut=bool(self.trouble)
        )
        return Held(self.planned, self.table, self.by_gate, self.made, standing, self.guarding)


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
        lags: some port could not be pointed at its table.
    """

    def __init__(self, ports: HttpPorts) -> None:
        self._ports = ports
        self.held: dict[PortKey, Held] = {}
        self.standings: Standings = {}
        self.without_waypoint: set[PortKey] = set()
        self.is_behind = self.leaves = self.lags = False
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

    def guarded_otherwise(
        self, tables: Mapping[PortKey, KernelTable], guarding: Mapping[str, Guarding]
    ) -> set[str]:
        """Clusters to which tables of before lead, by rules that are not those of now."""
        found: set[str] = set()
        for key, held in self.held.items():
            if tables.get(key) is not held.table:
                found |= held.guarded_otherwise(guarding)
        return found

    def bring(
        self,
        tables: Mapping[PortKey, KernelTable],
        places: Mapping[Where, PlannedPort],
        by_gate: Collection[str],
        failed: dict[str, str],
        *,
        guarding: Mapping[str, Guarding],
    ) -> None:
        """Write the tables, and point the ports at them: each when its own is there.

        Args:
            tables: by key.
            places: the ports, all that have routes; others lose theirs.
            by_gate: clusters among whose endpoints the kernel cannot choose.
            failed: gets what is not as it should be, by resource, with the reason.
            guarding: what guards the endpoints of clusters.

        Raises:
            BpfError: what nobody follows any more cannot be removed.
        """
        before, self.held = self.held, {}
        self.is_behind = self.leaves = self.lags = False
        self._wanted = {self._ports.key_of(*where) for where in places}
        self._sweeps_left, self._has_pointed = _SWEEPS, True
        at: dict[PortKey, dict[Where, PlannedPort]] = {}
        for where, planned in places.items():
            at.setdefault(key_of(planned), {})[where] = planned
        self._kept = set()
        self.without_waypoint = set()
        standings: dict[PortKey, Standing] = {}
        begun: list[_Begun] = []

        def settle() -> None:
            """In this order: all that is shown is pointed at before anything is swept to make room."""
            self._show(begun)
            for one in sorted(begun, key=lambda one: bool(one.why)):
                standings[one.key] = self._settle(one, at[one.key], failed)
            begun.clear()

        for key, table in tables.items():
            planned = list(at[key].values())[-1]
            begun.append(
                self._begin(
                    key,
                    planned,
                    table,
                    table.clusters.intersection(by_gate),
                    before.get(key),
                    at[key],
                    guarding,
                )
            )
            if self._ports.must_show:
                settle()
        settle()
        self.standings = {key: standings[key] for key in tables}
        self._ports.keep_ports(self._kept)
        self._ports.sweep()

    def _begin(
        self,
        key: PortKey,
        planned: PlannedPort,
        table: KernelTable,
        by_gate: frozenset[str],
        held: Held | None,
        wheres: Collection[Where],
        guarding: Mapping[str, Guarding],
    ) -> _Begun:
        """Prepare a table, if it is another than the one that is held."""
        is_unsafe = held is not None and held.has_other_rules(planned, table, guarding)
        if held and not self._ports.is_there(held.written) and self._leads(wheres, held):
            held = None  # it was swept, as no port followed it
        guards = {name: guarding[name] for name in table.clusters & guarding.keys()}
        one = _Begun(key, planned, table, by_gate, held, guards, is_unsafe)
        if held is None or held.table is not table or held.by_gate != by_gate:
            try:
                self._bring_in(one, self._ports.prepare)
            except KmeshError as error:
                one.why = str(error)
        return one

    @staticmethod
    def _bring_in(one: _Begun, bring: Callable[..., Written]) -> None:
        """A table, or what stands for it where it cannot be expressed."""
        try:
            one.made = bring(one.table.table, governs=one.table.port, gate_chooses=one.by_gate)
        except TableTooLargeError as error:
            one.table = unroutable(one.planned, str(error))
            one.trouble = f"{error}: all of it is the waypoint's"
            one.made = bring(one.table.table, governs=one.table.port, gate_chooses=one.by_gate)

    def _show(self, begun: Sequence[_Begun]) -> None:
        made = [(one, one.made) for one in begun if one.made is not None]
        if not made:
            return
        shown = self._ports.show([written for _, written in made])
        for (one, _), result in zip(made, shown, strict=True):
            if isinstance(result, KmeshError):
                one.made, one.why = None, str(result)
            else:
                one.made = result

    def _settle(self, one: _Begun, wheres: Collection[Where], failed: dict[str, str]) -> Standing:
        """Have ports follow a table, which gets another chance if it did not go in with the others."""
        if one.why:
            self._try_alone(one)
        held = one.now()
        if held is not None:
            self.held[one.key] = held
        if one.why and one.is_unsafe:
            held = None
        closed = self._point(one.key, wheres, held, one.why, failed, is_unsafe=one.is_unsafe)
        standing = _standing(held, one.why, closed, of=len(wheres))
        if standing.trouble:
            failed[f"route table {one.planned.port.table}"] = standing.trouble
        self.is_behind |= bool(one.why)
        return standing

    def _try_alone(self, one: _Begun) -> None:
        try:
            self._with_room(lambda: self._bring_in(one, self._ports.write))
            one.why = ""
        except KmeshError as error:
            one.made, one.why = None, str(error)

    def _with_room(self, action: Callable[[], None]) -> None:
        """Do something, and again when something was removed that nobody needs any more."""
        try:
            action()
        except KmeshError:
            if not (self._has_pointed and self._sweeps_left):
                raise
            self._sweeps_left -= 1
            self._has_pointed = False
            # Every table that is needed has its ports already, or kept those that they had.
            self._ports.keep_ports(self._wanted)
            self._ports.sweep(in_haste=True)
            action()

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
        *,
        is_unsafe: bool,
    ) -> list[Where]:
        """Point ports at their table, or shut those that would have none, or none that is safe; which these are."""
        closed: list[Where] = []
        for address, port in wheres:
            written = held.written if held else None
            if written is None and (is_unsafe or not self._ports.has_table(address, port)):
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
            self.is_behind = self.lags = True
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
