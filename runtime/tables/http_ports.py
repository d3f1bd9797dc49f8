# SPDX-License-Identifier: Apache-2.0
"""What the routes of one port do, as rows of maps, and the endpoints that they lead to.

A table is immutable: its number is a digest of its rows. A port that changes gets another table,
and turns over to it in one update (runtime/kernel/http_ports.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address

from runtime.model.http import (
    Abort,
    Balancer,
    DirectResponse,
    Forward,
    HashKind,
    PathMatch,
    RateLimit,
    Redirect,
    Route,
    RouteTable,
)
from runtime.model.mesh import IPAddress
from runtime.tables.enhanced_layout import Cluster, Endpoint, SlotKey
from runtime.tables.enhanced_layout import Route as Row
from runtime.tables.http_answers import Answers
from runtime.tables.http_cases import Cases
from runtime.tables.http_clients import ByClient, Ruling
from runtime.tables.http_conditions import Name
from runtime.tables.http_digest import digest
from runtime.tables.http_hashes import hash_word, why_unhashed
from runtime.tables.http_rings import ring
from runtime.tables.http_rulings import pack_ruling
from runtime.tables.http_stats import UNROUTED
from runtime.tables.http_texts import (
    Texts,
    matched,
    reason_text,
    redirect_flags,
    redirect_text,
    why_no_body,
    why_no_redirect,
)
from runtime.tables.slots import CLASSES, class_of

FORWARD, ANSWER, WAYPOINT, REDIRECT, GOVERNED = 1, 2, 3, 4, 5  # KMESH_ROUTE_FORWARD and so on
LIMIT_FIRST = 8  # KMESH_ROUTE_LIMIT_FIRST
MOST_CLUSTERS = 16
MOST_HASHES = 4
HTTP_CLUSTER = 1 << 63  # in the number of each cluster of routes, and of no service's
MOST_WEIGHT = (1 << CLASSES) - 1
_CLASS_SHIFT = 24
LESS_BUSY, ANY = 1, 2  # KMESH_CLUSTER_...
_FLAGS = {Balancer.LEAST_REQUEST: LESS_BUSY, Balancer.RANDOM: ANY}
_ABORTED = b"fault filter abort"  # runtime/gate/route.c, govern()


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint of a cluster; `weight` from 1 on, and at most `MOST_WEIGHT`."""

    address: IPAddress | str
    port: int
    weight: int = 1


def cluster_number(name: str) -> int:
    """By which a cluster is found in the maps: the same after a restart, and never a service's."""
    return digest(b"http cluster", name.encode()) | HTTP_CLUSTER


def mapped(address: IPAddress | str) -> bytes:
    """An address as the maps have it: IPv4 mapped into IPv6."""
    given = ip_address(address) if isinstance(address, str) else address
    if isinstance(given, IPv4Address):
        return bytes(10) + b"\xff\xff" + given.packed
    return given.packed


def why_waypoint(route: Route) -> str | None:
    """Why a route is neither the kernel's nor the gate's, whatever filters do; None when it is."""
    if route.beyond:
        return "; ".join(route.beyond)
    match route.action:
        case Forward():
            return _why_not_forwarded(route.action)
        case Redirect():
            return why_no_redirect(route.action)
        case DirectResponse(status, body):
            return why_no_body(status, body)


def _why_not_forwarded(action: Forward) -> str | None:
    if len(action.hash_policies) > MOST_HASHES:
        return f"hash_policy: more than {MOST_HASHES}"
    if sum(one.weight for one in action.clusters) == 0:
        return "weighted_clusters: no weight"
    if len(action.clusters) > MOST_CLUSTERS:
        return f"weighted_clusters: more than {MOST_CLUSTERS}"
    return None


_NOBODY = (0,) * MOST_CLUSTERS
_NO_HASH = (0,) * MOST_HASHES
_NOTHING = Row(0, 0, 0, 0, _NOBODY, _NOBODY, *(0,) * 15, _NO_HASH, _NO_HASH, 0, 0)


class _Rows:
    """The rows of one table's routes, and their texts."""

    def __init__(
        self, *, limit_first: bool, slots: Mapping[Name, int], gate_chooses: Collection[str]
    ) -> None:
        self.texts = Texts()
        self.answers = Answers()
        self._gate_chooses = gate_chooses
        self._slots = slots
        self._flags = LIMIT_FIRST if limit_first else 0

    def row(self, route: Route, ruling: Ruling | None) -> Row:
        """What a route does that is not a waypoint's; a ruling that denies everyone is its action already."""
        match route.action:
            case Forward():
                row = self._forward(route.action)
            case Redirect():
                row = self._redirect(route.action, route.match.path)
            case DirectResponse(status, body):
                row = _NOTHING._replace(kind=ANSWER, status=status)
                row = row._replace(text=self.texts.place(body), text_size=len(body))
        row = self._governed(row, route.abort, route.rate_limit)
        if isinstance(ruling, ByClient) and ruling.allowed is None:
            return self._ruled(row, ruling)
        return row._replace(answer=self._answer(route))

    def _ruled(self, row: Row, ruling: ByClient) -> Row:
        """A row that is the gate's alone: the kernel does not know who sends a request."""
        packed = pack_ruling(ruling)
        return row._replace(
            kind=GOVERNED if row.kind == FORWARD else row.kind,
            ruling=self.texts.place(packed, whole=True),
            ruling_size=len(packed),
        )

    def waypoint(self, why: str) -> Row:
        """What a route does that is a waypoint's: without one it says why."""
        text = reason_text(why)
        return _NOTHING._replace(kind=WAYPOINT, text=self.texts.place(text), text_size=len(text))

    def _answer(self, route: Route) -> int:
        """What every request of a route is answered with, if that is always the same."""
        abort = route.abort
        if route.rate_limit is not None:
            return 0
        if abort is not None:
            always = abort.numerator >= abort.denominator
            return self.answers.place(abort.status, _ABORTED) if always else 0
        if isinstance(route.action, DirectResponse):
            return self.answers.place(route.action.status, route.action.body)
        return 0

    def _hashes(self, action: Forward) -> tuple[tuple[int, ...], tuple[int, ...]]:
        room = (0,) * (MOST_HASHES - len(action.hash_policies))
        kinds = (hash_word(one, self._slots) for one in action.hash_policies)
        names = (
            self.texts.place(one.name.encode() + b"\0") if one.kind is HashKind.COOKIE else 0
            for one in action.hash_policies
        )
        return (*kinds, *room), (*names, *room)

    def _forward(self, action: Forward) -> Row:
        chosen = action.clusters
        room = (0,) * (MOST_CLUSTERS - len(chosen))
        hashes, names = self._hashes(action)
        by_gate = any(one.weight and one.name in self._gate_chooses for one in chosen)
        return _NOTHING._replace(
            kind=GOVERNED if action.hash_policies or by_gate else FORWARD,
            hash=hashes,
            hash_name=names,
            total=sum(one.weight for one in chosen),
            clusters=(*(cluster_number(one.name) for one in chosen), *room),
            weights=(*(one.weight for one in chosen), *room),
        )

    def _redirect(self, action: Redirect, path: PathMatch) -> Row:
        text = redirect_text(action)
        return _NOTHING._replace(
            kind=REDIRECT,
            status=action.status,
            flags=redirect_flags(action),
            text=self.texts.place(text),
            text_size=len(text),
            matched=matched(path),
        )

    def _governed(self, row: Row, abort: Abort | None, limit: RateLimit | None) -> Row:
        if abort is not None:
            row = row._replace(
                abort_status=abort.status,
                abort_share=abort.numerator,
                abort_of=abort.denominator,
            )
        if limit is not None:
            bucket = f"{limit.bucket} {limit.most} {limit.tokens} {limit.interval_ms}"
            row = row._replace(
                flags=row.flags | self._flags,
                limit_status=limit.status,
                limit_share=limit.numerator,
                limit_of=limit.denominator,
                limit_most=limit.most,
                limit_tokens=limit.tokens,
                limit_ms=limit.interval_ms,
                bucket=digest(b"bucket", bucket.encode()),
            )
        if row.kind == FORWARD and (abort is not None or limit is not None):
            return row._replace(kind=GOVERNED)
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRows:
    """A table: its number, the packed row of each case by index, and why some routes need a waypoint.

    `origin` has the number of each case's route; None where no route takes the request. `rulings` has
    what authorization says of each case (`Cases`); the names of policies are in no row.
    """

    number: int
    rows: tuple[bytes, ...]
    waypoint: Mapping[int, str]
    texts: bytes = b""
    answers: bytes = b""
    origin: tuple[int | None, ...] = ()
    rulings: tuple[Ruling | None, ...] = ()

    @property
    def buckets(self) -> frozenset[int]:
        """Numbers of the buckets that its rate limits take tokens from."""
        return frozenset(Row.unpack(row).bucket for row in self.rows) - {0}


def route_rows(
    table: RouteTable,
    rough: Mapping[int, str],
    stats: Sequence[int] = (),
    slots: Mapping[Name, int] | None = None,
    *,
    gate_chooses: Collection[str] = (),
) -> RouteRows:
    """The rows of a route table whose port's filters are not known: what they might do is a waypoint's.

    Args:
        table: the routes, numbered through all virtual hosts.
        rough: routes that the matcher cannot tell exactly, and why (`CompiledRoutes.rough`).
        stats: where the requests of each route are counted; all together without it.
        slots: places of headers and query parameters (`CompiledRoutes.slots`).
        gate_chooses: clusters whose endpoints the gate alone chooses.
    """
    hosts = tuple(
        replace(host, routes=tuple(map(_alone, host.routes))) for host in table.virtual_hosts
    )
    alone = replace(table, virtual_hosts=hosts)
    count = sum(len(host.routes) for host in hosts)
    cases = Cases(table=alone, origin=tuple(range(count)))
    return case_rows(cases, rough, stats, slots, gate_chooses=gate_chooses)


def _alone(route: Route) -> Route:
    if route.abort or route.rate_limit or route.rbac:
        told = "a fault, a rate limit or an authorization of the route's own"
        return replace(route, beyond=(*route.beyond, told))
    return route


def case_rows(
    cases: Cases,
    rough: Mapping[int, str],
    stats: Sequence[int] = (),
    slots: Mapping[Name, int] | None = None,
    *,
    gate_chooses: Collection[str] = (),
) -> RouteRows:
    """The rows of a table that is split into cases (http_cases.py).

    Args:
        cases: the routes.
        rough: cases that the matcher cannot tell exactly, and why.
        stats: where the requests of each route (not case) are counted; all together without it.
        slots: places of headers and query parameters (`CompiledRoutes.slots`).
        gate_chooses: clusters whose endpoints the gate alone chooses.
    """
    made = _Rows(
        limit_first=cases.limit_first, slots=slots or {}, gate_chooses=frozenset(gate_chooses)
    )
    rows: list[bytes] = []
    waypoint: dict[int, str] = {}
    told = "; ".join(cases.table.beyond)
    routes = (route for host in cases.table.virtual_hosts for route in host.routes)
    for index, route in enumerate(routes):
        why = told or rough.get(index) or why_waypoint(route) or why_unhashed(route, slots or {})
        origin = cases.origin[index]
        ruling = cases.rulings[index] if cases.rulings else None
        row = made.waypoint(why) if why else made.row(route, ruling)
        stat = UNROUTED if origin is None else stats[origin] if stats else 0
        rows.append(row._replace(stat=stat).pack())
        if why and origin is not None:
            waypoint.setdefault(origin, why)
    texts = made.texts.pack()
    return RouteRows(
        number=digest(texts, *rows),
        rows=tuple(rows),
        waypoint=waypoint,
        texts=texts,
        answers=made.answers.pack(),
        origin=cases.origin,
        rulings=cases.rulings,
    )


def cluster_rows(
    name: str, targets: Iterable[Target], balancer: Balancer = Balancer.ROUND_ROBIN
) -> tuple[bytes, dict[bytes, bytes]]:
    """A cluster's value and its slots by key (bpf/include/kmesh/balance.h).

    Endpoints that weigh the same weigh one: so they are told from those that do not.
    """
    number = cluster_number(name)
    counts, weights = [0] * CLASSES, [0] * CLASSES
    slots: dict[bytes, bytes] = {}
    for target in _alike(list(_merged(targets))):
        kind = class_of(target.weight)
        key = SlotKey(number, kind << _CLASS_SHIFT | counts[kind])
        port = target.port.to_bytes(2, "big")
        slots[key.pack()] = Endpoint(mapped(target.address), port, 0, target.weight).pack()
        counts[kind] += 1
        weights[kind] += target.weight
    flags = _FLAGS.get(balancer, 0)
    return Cluster(sum(weights), flags, tuple(counts), tuple(weights)).pack(), slots


def _alike(targets: list[Target]) -> list[Target]:
    if len({one.weight for one in targets}) != 1:
        return targets
    return [replace(one, weight=1) for one in targets]


def ring_of(targets: Iterable[Target]) -> bytes:
    """The ring of a cluster that hashes; empty without endpoints."""
    return ring(
        [
            (
                Endpoint(mapped(one.address), one.port.to_bytes(2, "big"), 0, one.weight).pack(),
                one.weight,
            )
            for one in _merged(targets)
        ]
    )


def _merged(targets: Iterable[Target]) -> Iterator[Target]:
    """Each endpoint once, in an order that does not depend on the source's."""
    sums: dict[tuple[bytes, int], int] = defaultdict(int)
    for one in targets:
        sums[mapped(one.address), one.port] += one.weight
    for (address, port), weight in sorted(sums.items()):
        if weight > 0:
            host = str(ip_address(address).ipv4_mapped or ip_address(address))  # type: ignore[union-attr]
            yield Target(host, port, min(weight, MOST_WEIGHT))
