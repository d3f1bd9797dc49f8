# SPDX-License-Identifier: Apache-2.0
"""Writing route tables into the kernel: what is pointed at, then the pointer, then away with the old.

Grammars, graphs and tables have digests for numbers and never change; ports share them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runtime import log
from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.kernel.http_inner import InnerMaps, Sets, keep, show
from runtime.kernel.http_members import PLAIN, ClusterRows
from runtime.kernel.http_refused import Refused
from runtime.kernel.http_routes import RouteRowsMap
from runtime.kernel.http_stats import RouteStats
from runtime.model.http import HttpPort as Port
from runtime.model.http import RouteTable
from runtime.model.mesh import IPAddress
from runtime.tables.enhanced_layout import ClusterKey, Frontend, FrontendKey, HttpPort, SlotKey
from runtime.tables.http_answers import ANSWER
from runtime.tables.http_cases import split
from runtime.tables.http_clients import Ruling
from runtime.tables.http_digest import digest
from runtime.tables.http_govern import Governed
from runtime.tables.http_layout import HttpSet
from runtime.tables.http_ports import (
    HTTP_CLUSTER,
    RouteRows,
    Target,
    case_rows,
    cluster_number,
    cluster_rows,
    mapped,
    ring_of,
    route_rows,
)
from runtime.tables.http_rings import CELL as RING_CELL
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from runtime.tables.http_texts import CELL as TEXT_CELL

_log = log.get("kernel")
_TCP = 6
_TO_WAYPOINT = 1  # KMESH_FRONTEND_WAYPOINT
_MOST_WAITING = 256  # descriptors: a process may have 1,024


@dataclass(frozen=True, slots=True)
class Written:
    """A table in the kernel: what a port's element is to say, and which routes are a waypoint's, and why.

    `partly` says of routes that serve why some requests that may be theirs are a waypoint's. `rulings` has what authorization says of each case: the names of policies are nowhere in the maps.
    """

    value: HttpPort
    waypoint: Mapping[int, str]
    partly: Mapping[int, str] = field(default_factory=dict)
    rulings: tuple[Ruling | None, ...] = ()


# Of a port with routes for which there is no room: nothing but its element is needed.
_SHUT = HttpPort(0, 0, 0, 0, 0)


def shut(why: str) -> Written:
    """What a port is pointed at whose routes are not there: all of it is the waypoint's (runtime/gate/route.c)."""
    return Written(_SHUT, {0: why})


def _parts(port: HttpPort) -> tuple[int, int, int]:
    """What a port cannot do without."""
    return port.grammar, port.graph, port.table


def _port_key(address: IPAddress | str, port: int) -> bytes:
    return FrontendKey(mapped(address), port.to_bytes(2, "big"), _TCP).pack()


class HttpPorts:
    """The routes of ports, and the endpoints of clusters, in the maps of the enhanced path.

    What is in the maps when it is made is taken over: it goes when nothing points at it any more.

    Args:
        maps: the path's maps, open.
    """

    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self._maps = maps
        self.stats = RouteStats(maps)
        self._rulings: dict[bytes, tuple[int, tuple[Ruling | None, ...]]] = {}
        self._ports = {key: HttpPort.unpack(value) for key, value in maps["http_ports"].items()}
        self._there = set(map(_parts, self._ports.values()))
        self._clusters: dict[int, dict[bytes, bytes]] = {}  # slots, by the number of the cluster
        self._installed: dict[int, bytes] = {}
        self._used_answers: set[int] = set()  # when it was last swept
        self._sets, self._rings = Sets(maps), InnerMaps(maps["http_rings"])
        self._texts, self._answers = InnerMaps(maps["http_texts"]), InnerMaps(maps["http_answers"])
        self._routes = RouteRowsMap(maps)
        self._rows = ClusterRows(maps)
        self._refused = Refused(maps["frontends"])
        self._adopt_clusters()

    def _adopt_clusters(self) -> None:
        for key, value in self._maps["clusters"].items():
            number = ClusterKey.unpack(key).cluster
            if number & HTTP_CLUSTER:
                self._installed[number] = value
                self._clusters.setdefault(number, {})
        for key, value in self._maps["slots"].items():
            number = SlotKey.unpack(key).cluster
            if number & HTTP_CLUSTER:
                self._clusters.setdefault(number, {})[key] = value

    def set_cluster(
        self,
        name: str,
        targets: Iterable[Target],
        *,
        hashes: bool = False,
        governed: Governed | None = None,
        connect_ms: int = 0,
    ) -> str:
        """Say which endpoints a cluster has; none of those that stay is ever missing meanwhile.

        Args:
            name: of the cluster.
            targets: the endpoints, which may be used.
            hashes: requests that are alike, by what their routes say of them, go to one endpoint.
            governed: what the gate does for it, which then alone chooses among its endpoints.
            connect_ms: after so long a connection to an endpoint has failed; 0 for the gate's default.
                A governed cluster says it in its row.

        Returns:
            why requests that are alike do not go to one endpoint, where they should: there is no room to
            tell. The cluster has its endpoints all the same.

        Raises:
            BpfError: the kernel has no room; what the cluster had stays in use.
        """
        targets = list(targets)
        number = cluster_number(name)
        there = self._clusters.setdefault(number, {})
        before = self._rows.ring_of(number)
        ring, unhashed = self._write_ring(ring_of(targets)) if hashes and targets else (0, "")
        if governed is not None:
            # The gate looks here where the kernel's tables have nothing.
            self._rows.put(number, governed.row._replace(ring=ring), governed.members)
            self._drop(number, there)
        else:
            value, slots = cluster_rows(name, targets)
            for key, slot in slots.items():
                if there.get(key) != slot:
                    self._maps["slots"].update(key, slot)
                    there[key] = slot
            if self._installed.get(number) != value:
                self._maps["clusters"].update(ClusterKey(number).pack(), value)
                self._installed[number] = value
            for key in there.keys() - slots.keys():
                self._maps["slots"].delete(key)
                del there[key]
            self._rows.put(number, PLAIN._replace(ring=ring, connect_ms=connect_ms), ())
        if before != ring and before:
            self._sweep_rings()
        return unhashed

    def _drop(self, number: int, slots: dict[bytes, bytes]) -> None:
        """The kernel has nothing to choose from any more."""
        if self._installed.pop(number, None) is not None:
            self._maps["clusters"].delete(ClusterKey(number).pack())
        for key in slots:
            self._maps["slots"].delete(key)
        slots.clear()

    def keep_clusters(self, names: Iterable[str]) -> None:
        """Remove all clusters but these; no route may lead to the others any more."""
        kept = {cluster_number(name) for name in names}
        for number in self._clusters.keys() - kept:
            self._drop(number, self._clusters.pop(number))
        if self._rows.keep(kept):
            self._sweep_rings()

    def _write_ring(self, ring: bytes) -> tuple[int, str]:
        """Its number; or 0, and why there is none."""
        number = digest(b"ring", ring)
        try:
            self._rings.make(number, ring, RING_CELL)
            _raise(show([self._rings])[0])
        except BpfError as error:
            return 0, f"{error}; its endpoints are chosen without hashing meanwhile"
        return number, ""

    def _sweep_rings(self) -> None:
        keep({self._rings: self._rows.rings()})

    def set_port(
        self,
        address: IPAddress | str,
        port: int,
        table: RouteTable,
        *,
        governs: Port | None = None,
    ) -> dict[int, str]:
        """Route what comes to an address and port by a table, from one moment on.

        Args:
            address, port: where it comes to.
            table: what it is routed by.
            governs: the port's filters (authorization, faults, rate limits). Without it a port that
                has any is not for this call.

        Returns:
            by route, why it is neither the kernel's nor the gate's; such requests get 503.

        Raises:
            TableTooLargeError: it cannot be expressed; the port is as before.
            BpfError: the kernel refused a part; the port is as before.
        """
        written = self.write(table, governs=governs)
        self.point(address, port, written)
        self.sweep()
        return dict(written.waypoint)

    def remove_port(self, address: IPAddress | str, port: int) -> None:
        """The address and port have no routes any more."""
        self.keep_ports(self._ports.keys() - {_port_key(address, port)})
        self.sweep()

    def write(
        self,
        table: RouteTable,
        *,
        governs: Port | None = None,
        gate_chooses: Collection[str] = (),
    ) -> Written:
        """Bring a table into the kernel, for ports to be pointed at; the next sweep removes it if none is.

        Args:
            as for `prepare`.

        Raises:
            TableTooLargeError: it cannot be expressed.
            BpfError: the kernel refused a part.
        """
        shown = self.show([self.prepare(table, governs=governs, gate_chooses=gate_chooses)])[0]
        if isinstance(shown, BpfError):
            raise shown
        return shown

    def prepare(
        self,
        table: RouteTable,
        *,
        governs: Port | None = None,
        gate_chooses: Collection[str] = (),
    ) -> Written:
        """Make a table; it is there when it has been shown, with others: each time takes a while.

        Args:
            table: the routes; what is `beyond` them is a waypoint's.
            governs: the port's filters (authorization, faults, rate limits), and how it reads paths.
            gate_chooses: clusters whose endpoints the kernel cannot choose: a choice among clusters
                is made once, so routes that lead to any of them are all the gate's.

        Raises:
            TableTooLargeError: it cannot be expressed.
            BpfError: the kernel refused a part.
        """
        stats = self.stats.assign(table)
        cases = split(table, governs) if governs else None
        compiled = compile_routes(cases.table if cases else table, port=governs)
        if cases:
            rows = case_rows(
                cases, compiled.rough, stats, compiled.slots, gate_chooses=gate_chooses
            )
        else:
            rows = route_rows(
                table, compiled.rough, stats, compiled.slots, gate_chooses=gate_chooses
            )
        self.stats.hold(rows.number, stats)
        answers = self._make(compiled, rows)
        value = HttpPort(compiled.set.grammar, compiled.set.graph, rows.number, 0, answers)
        partly = {
            route: why
            for case, why in compiled.undecided.items()
            if (route := rows.origin[case]) is not None and route not in rows.waypoint
        }
        return Written(value, rows.waypoint, partly, rows.rulings)

    @property
    def must_show(self) -> bool:
        """Whether as much is prepared as should wait to be shown."""
        return sum(one.waiting for one in self._inner) >= _MOST_WAITING

    @property
    def _inner(self) -> tuple[InnerMaps, ...]:
        """What tables are made of, beside their rows."""
        return self._sets.grammars, self._sets.graphs, self._texts, self._answers

    def show(self, tables: Sequence[Written]) -> list[Written | BpfError]:
        """Have all tables that were prepared be there, in one wait.

        Returns:
            for each what it became; or why it is not there.
        """
        grammars, graphs, texts, answers = show(self._inner)
        shown: list[Written | BpfError] = []
        for one in tables:
            value = one.value
            missing = (
                grammars.get(value.grammar) or graphs.get(value.graph) or texts.get(value.table)
            )
            if missing:
                shown.append(missing)
                continue
            if value.answers in answers:
                value = self._without_answers(value, answers[value.answers])
            self._there.add(_parts(value))
            shown.append(replace(one, value=value))
        return shown

    @staticmethod
    def _without_answers(value: HttpPort, error: BpfError) -> HttpPort:
        _log.warning("%s; the gate gives these answers, and the kernel none", error)
        return value._replace(answers=0)

    def point(
        self, address: IPAddress | str, port: int, written: Written, *, waypoint: int = 0
    ) -> bytes:
        """Have a table that was written route what comes to an address and port.

        Args:
            waypoint: the number of the cluster of the waypoint's instances; 0 for none.

        Returns:
            the port's key, for `keep_ports`.
        """
        key = _port_key(address, port)
        value = written.value._replace(waypoint=waypoint)
        if self._ports.get(key) != value:
            self._maps["http_ports"].update(key, value.pack())
            self._ports[key] = value
        self._refused.admit(key)
        self._rulings[key] = written.value.table, written.rulings
        return key

    def refuse(self, address: IPAddress | str, port: int) -> bool:
        """Whether connections to a port that cannot be pointed anywhere are refused now, not balanced.

        Raises:
            BpfError: the kernel refused.
        """
        key = _port_key(address, port)
        return key not in self._ports and self._refused.refuse(key)

    def ruling_of(
        self, address: IPAddress | str, port: int, *, table: int, case: int
    ) -> Ruling | None:
        """What authorization says of a case of a port's table; any thread may ask.

        None where it asks nothing of that case, or the port has another table now.
        """
        number, rulings = self._rulings.get(_port_key(address, port), (0, ()))
        return rulings[case] if number == table and case < len(rulings) else None

    def is_there(self, written: Written) -> bool:
        """Whether a table that was written has not been swept."""
        return _parts(written.value) in self._there

    def has_table(self, address: IPAddress | str, port: int) -> bool:
        """Whether a port has routes, be it of a daemon before this one."""
        value = self._ports.get(_port_key(address, port), _SHUT)
        return value._replace(waypoint=0) != _SHUT

    @staticmethod
    def key_of(address: IPAddress | str, port: int) -> bytes:
        """A port's key, for `keep_ports`."""
        return _port_key(address, port)

    def waypoint_of(self, address: IPAddress | str, port: int) -> int:
        """The number of the cluster of a service's waypoint; 0 for none."""
        value = self._maps["frontends"].lookup(_port_key(address, port))
        front = Frontend.unpack(value) if value else None
        return front.cluster if front and front.flags & _TO_WAYPOINT else 0

    def keep_ports(self, keys: Iterable[bytes]) -> None:
        """Remove the routes of all other ports."""
        keys = set(keys)
        self._refused.keep(keys)
        for key in self._ports.keys() - keys:
            self._maps["http_ports"].delete(key)
            del self._ports[key]
            self._rulings.pop(key, None)

    def _make(self, compiled: CompiledRoutes, rows: RouteRows) -> int:
        """The number of its answers."""
        self._routes.write(rows.number, rows.rows, rows.buckets)
        self._sets.make(compiled)
        if rows.texts:
            self._texts.make(rows.number, rows.texts, TEXT_CELL)
        answers = digest(b"answers", rows.answers)
        try:
            self._answers.make(answers, rows.answers, ANSWER.size)
        except BpfError as error:
            _log.warning("%s; the gate gives these answers, and the kernel none", error)
            return 0
        return answers

    def sweep(self, *, in_haste: bool = False) -> None:
        """Remove what no port points at.

        Args:
            in_haste: soon after another time, for want of room.
        """
        ports = self._ports.values()
        tables = {port.table for port in ports}
        self._there &= set(map(_parts, ports))
        kept = self._sets.kept(HttpSet(port.grammar, port.graph) for port in ports)
        kept[self._texts] = tables
        # A program may be between looking an answer up and giving it: those last in use stay as well.
        answers = {port.answers for port in ports}
        if not in_haste:
            kept[self._answers] = answers | self._used_answers
            self._used_answers = answers
        keep(kept)
        self.stats.keep(tables)
        self._routes.keep(tables)


def _raise(failed: Mapping[int, BpfError]) -> None:
    for error in failed.values():
        raise error
