# SPDX-License-Identifier: Apache-2.0
"""What happens to an HTTP request: the walk of the kernel, in the very tables that the kernel has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Protocol

from runtime.control.policy_names import named
from runtime.errors import KmeshError
from runtime.kernel.http_tables import HttpTables
from runtime.model.mesh import IPAddress
from runtime.plan.normalise import normalised_head
from runtime.plan.walk import Content, Routed, route
from runtime.tables.enhanced_layout import FrontendKey, HttpPort, RouteKey, RouteStat
from runtime.tables.enhanced_layout import Route as Row
from runtime.tables.http_clients import Ruling
from runtime.tables.http_governed import read_governed
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_ports import ANSWER, FORWARD, GOVERNED, REDIRECT, WAYPOINT, mapped
from runtime.tables.http_stats import RouteName
from runtime.tables.http_texts import reason_in
from runtime.tables.lookup import host_port, read_cluster

Json = Mapping[str, Any]
_TCP = 6
_TRIES = 5
_DOES = {
    FORWARD: "to an endpoint",
    ANSWER: "answered by the gate",
    REDIRECT: "redirected by the gate",
    GOVERNED: "to an endpoint, by the gate",
}


class RulingOf(Protocol):
    """What authorization says of a case of a port's table: `HttpPorts.ruling_of`."""

    def __call__(
        self, address: IPAddress, port: int, *, table: int, case: int
    ) -> Ruling | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpQuestion:
    """A request to a service's address.

    Attributes:
        head: as it would be sent.
    """

    address: IPAddress
    port: int
    head: bytes


def request_head(
    method: str, target: str, headers: Sequence[str], *, host: str, port: int
) -> bytes:
    """A request's head as curl would send it.

    Args:
        headers: `Name: value` each; one named Host stands in place of the service's.

    Raises:
        KmeshError: a part of it would be more than it says, or is none.
    """
    lines = [one.partition(":") for one in headers]
    for name, colon, value in lines:
        if not colon or not name.strip():
            raise KmeshError(f"{name!r} is no header", hint="write -H 'name: value'")
        _printable(name + value)
    _printable(method + target)
    if " " in method + target or not method or not target:
        raise KmeshError(f"{method!r} {target!r} is no method and path", hint="GET /path")
    named = {name.strip().lower() for name, _, _ in lines}
    authority = host if port == 80 else f"{host}:{port}"
    first = [] if "host" in named else [f"Host: {authority}"]
    rest = [f"{name.strip()}: {value.strip()}" for name, _, value in lines]
    text = "\r\n".join([f"{method} {target} HTTP/1.1", *first, *rest, "", ""])
    return text.encode("latin-1", errors="replace")


def texts(given: object) -> Sequence[str]:
    """Headers as they were asked for, none or a list.

    Raises:
        KmeshError: they are something else.
    """
    if given is None:
        return ()
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        return given
    raise KmeshError("headers are a list of texts")


def _printable(text: str) -> None:
    if not text.isprintable():
        raise KmeshError("a request's head has no control characters")


def explain_request(
    question: HttpQuestion,
    tables: HttpTables,
    *,
    routes: Mapping[int, RouteName],
    clusters: Mapping[int, str],
    ruling_of: RulingOf | None = None,
) -> Json:
    """Which route, clusters and endpoints a request meets.

    Args:
        question: the request.
        tables: the kernel's.
        routes: what routes are called, by the number of their counters' owner.
        clusters: what clusters are called, by number.
        ruling_of: what authorization says of a case; the maps do not tell.

    Raises:
        KmeshError: nothing is routed at that address, or it is being replaced all the time.
    """
    for _ in range(_TRIES):
        port = _port(question, tables)
        answer = _walk(question, tables, port, routes=routes, clusters=clusters)
        if answer is not None:
            case = answer.pop("case")
            return answer | {"authorization": _authorization(question, port, case, ruling_of)}
    raise KmeshError("the routes are being replaced; ask again")


def _port(question: HttpQuestion, tables: HttpTables) -> HttpPort:
    number = question.port.to_bytes(2, "big")
    value = tables.lookup("http_ports", FrontendKey(mapped(question.address), number, _TCP).pack())
    if value is None:
        where = host_port(question.address, question.port)
        raise KmeshError(
            f"the kernel routes no HTTP at {where}",
            hint="`kmeshctl routes` says what is routed where, and why",
        )
    return HttpPort.unpack(value)


def _walk(
    question: HttpQuestion,
    tables: HttpTables,
    port: HttpPort,
    *,
    routes: Mapping[int, RouteName],
    clusters: Mapping[int, str],
) -> dict[str, Any] | None:
    """None: something went while it was read."""
    if not port.table:
        return _without_table(question)
    grammar = tables.content("http_grammars", port.grammar)
    graph = tables.content("http_graphs", port.graph)
    if grammar is None or graph is None:
        return None
    routed = route(Content(grammar, graph), question.head)
    if routed.verdict in (Verdict.DOT_SEGMENT, Verdict.ESCAPE):  # the gate rewrites it
        question = replace(question, head=normalised_head(question.head) or question.head)
        routed = route(Content(grammar, graph), question.head)
    answer: dict[str, Any] = {
        "address": str(question.address),
        "port": question.port,
        "request": _line(question),
        "verdict": routed.verdict.name.lower(),
        "steps": routed.steps,
        "case": routed.route,
        "does": _not_routed(routed),
        "route": None,
        "status": None,
        "clusters": [],
    }
    if routed.verdict is not Verdict.OK or routed.route is None:
        answer["status"] = 404 if routed.verdict is Verdict.OK else None
        return answer
    value = tables.lookup("http_routes", RouteKey(port.table, routed.route).pack())
    if value is None:
        return None
    row = Row.unpack(value)
    answer["does"] = ", ".join((_does(tables, port, row), *_before(row)))
    answer["status"] = row.status or None
    answer["route"] = _name(tables, row, routes)
    answer["clusters"] = [
        _cluster(tables, number, 100 * weight / row.total, clusters)
        for number, weight in zip(row.clusters, row.weights, strict=True)
        if weight and row.total
    ]
    return answer


def _without_table(question: HttpQuestion) -> dict[str, Any]:
    return {
        "address": str(question.address),
        "port": question.port,
        "request": _line(question),
        "verdict": Verdict.NO_TABLE.name.lower(),
        "steps": 0,
        "case": None,
        "does": "at the waypoint: the kernel has no room for the service's routes (`kmeshctl status` says why)",
        "route": None,
        "status": None,
        "clusters": [],
    }


def _line(question: HttpQuestion) -> str:
    return question.head.decode("latin-1").split("\r\n", 1)[0]


def _authorization(
    question: HttpQuestion, port: HttpPort, case: int | None, ruling_of: RulingOf | None
) -> Json | None:
    """Whose policy lets the request pass or denies it, or which clients'; None where no rule is asked, or known."""
    if case is None or ruling_of is None:
        return None
    found = ruling_of(question.address, question.port, table=port.table, case=case)
    return named(found) if found else None


def _does(tables: HttpTables, port: HttpPort, row: Row) -> str:
    if row.kind != WAYPOINT:
        return _DOES.get(row.kind, "answered by the gate")
    texts = tables.content("http_texts", port.table) or b""
    why = reason_in(texts[row.text : row.text + row.text_size])
    return f"at the waypoint ({why})" if why else "at the waypoint"


def _before(row: Row) -> Iterator[str]:
    """What may happen to a request first, and what chooses the endpoint."""
    if row.ruling_size:
        yield "but 403 for some clients"
    if row.abort_of and row.abort_share:
        share = 100 * row.abort_share / row.abort_of
        yield f"but {share:g} % are aborted with {row.abort_status}"
    if row.bucket:
        limit = f"{row.limit_tokens} each {row.limit_ms} ms, {row.limit_most} at once"
        yield f"limited to {limit} (else {row.limit_status})"
    if row.hash[0]:
        yield "chosen by a hash of the request where the cluster hashes"


def _not_routed(routed: Routed) -> str:
    if routed.verdict is not Verdict.OK:
        words = routed.verdict.name.lower().replace("_", " ")
        return f"no route is looked up for such a head ({words}): the gate refuses it or has the waypoint decide"
    if not routed.found_host:
        return "no virtual host has this name: 404"
    return "no route of its virtual host takes it: 404"


def _name(tables: HttpTables, row: Row, routes: Mapping[int, RouteName]) -> Json:
    value = tables.lookup("route_stats", row.stat.to_bytes(4, "little"))
    name = routes.get(RouteStat.unpack(value).name) if value else None
    if name is None:
        return {
            "table": None,
            "virtual_host": None,
            "index": None,
            "name": None,
            "counter": row.stat,
        }
    return {
        "table": name.table,
        "virtual_host": name.host,
        "index": name.index,
        "name": name.label,
        "counter": row.stat,
    }


def _cluster(tables: HttpTables, number: int, share: float, names: Mapping[int, str]) -> Json:
    governed = read_governed(tables, number)
    return {
        "cluster": f"{number:016x}",
        "name": names.get(number),
        "share_percent": round(share, 4),
        "governed": governed.words if governed else [],
        "endpoints": [
            {
                "address": str(one.address),
                "port": one.port,
                "weight": one.weight,
                "share_percent": one.percent,
            }
            for one in (governed.endpoints if governed else read_cluster(tables, number))
        ],
    }


def agrees(answer: Json, seen: Json) -> list[str]:
    """In what a request that was sent differs from what was computed; nothing where it does not.

    Args:
        answer: from `explain_request`.
        seen: what became of the request: its route's name, endpoint (or "") and status.
    """
    found = []
    name = answer["route"]["name"] if answer["route"] else None
    if seen["route"] != name:
        found.append(f"the request took the route {seen['route']!r}, not {name!r}")
    candidates = {
        host_port(ip_address(one["address"]), one["port"])
        for cluster in answer["clusters"]
        for one in cluster["endpoints"]
    }
    if seen["endpoint"] and candidates and seen["endpoint"] not in candidates:
        found.append(f"it went to {seen['endpoint']}, which is no endpoint of these clusters")
    may_differ = any(word in answer["does"] for word in ("aborted", "limited", "some clients"))
    if may_differ:
        return found
    if not candidates and answer["status"] and seen["status"] != answer["status"]:
        found.append(f"its status was {seen['status']}, not {answer['status']}")
    return found
