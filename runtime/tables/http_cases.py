# SPDX-License-Identifier: Apache-2.0
"""Routes split into cases, so that what filters ask of a request is told by the graph of routes.

A fault for requests with some header, or an authorization by method and path, makes more routes of one:
those that are aborted or denied come first, and what is left of the route after them. Where a port's
filters govern requests that no route takes, each virtual host gets a last route that answers 404.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from runtime.model.http import (
    Abort,
    DirectResponse,
    HeaderMatch,
    HttpPort,
    PathKind,
    PathMatch,
    RateLimit,
    Rbac,
    Route,
    RouteMatch,
    RouteTable,
    Step,
    VirtualHost,
)
from runtime.tables.http_authorization import BeyondError, Client
from runtime.tables.http_clients import ByClient, Ruling, rulings
from runtime.tables.http_effects import Effects, effects, ordered_effects
from runtime.tables.http_rulings import pack_ruling

DENIED = DirectResponse(403, b"RBAC: access denied")
_NOBODYS = Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "")), action=DirectResponse(404))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """A route table of which each route is one case.

    Attributes:
        table: in it `abort` and `rate_limit` hold for whatever the route takes, `rbac` has been seen to.
        origin: by the number of a case the number of its route in the table given; None where no
            route takes the request.
        rulings: by the number of a case what authorization decides of it, or of which clients what; None
            where nothing is asked of it there.
        limit_first: whether the rate limit comes before the fault.
    """

    table: RouteTable
    origin: tuple[int | None, ...]
    rulings: tuple[Ruling | None, ...] = ()
    limit_first: bool = False


def check_ruling(ruling: Ruling, *, acts_before: bool) -> None:
    """See that the gate can carry out what differs by client.

    Args:
        ruling: what is decided.
        acts_before: a fault or a rate limit comes before authorization; the gate begins with that.

    Raises:
        BeyondError: it cannot.
    """
    if not isinstance(ruling, ByClient):
        return
    if acts_before:
        raise BeyondError("rbac: conditions on the client behind a fault or a rate limit")
    pack_ruling(ruling)


def split(table: RouteTable, port: HttpPort, *, client: Client | None = None) -> Cases:
    """The cases of a table's routes under a port's filters; those of one client, where it is given."""
    splitter = _Splitter(port, client)
    hosts: list[VirtualHost] = []
    origin: list[int | None] = []
    found: list[Ruling | None] = []
    number = 0
    hosts_given = table.virtual_hosts
    governs_all = any(effects(_NOBODYS, port))
    if governs_all and not any("*" in host.domains for host in hosts_given):
        hosts_given = (*hosts_given, VirtualHost("", ("*",)))
    for place, host in enumerate(hosts_given):
        routes: list[Route] = []
        given: list[tuple[int | None, Route, str, int]] = [
            (number + index, route, f"{place} {host.name}", index)
            for index, route in enumerate(host.routes)
        ]
        number += len(given)
        if governs_all:
            given.append((None, _NOBODYS, "", 0))
        for whose, route, name, index in given:
            for case, ruling in splitter.split(route, name, index):
                routes.append(case)
                found.append(ruling)
                origin.append(whose)
        hosts.append(replace(host, routes=tuple(routes)))
    steps = [one for one in port.steps if one is not Step.RBAC]
    return Cases(
        table=replace(table, virtual_hosts=tuple(hosts)),
        origin=tuple(origin),
        rulings=tuple(found),
        limit_first=steps[:1] == [Step.RATE_LIMIT],
    )


@dataclass(frozen=True, slots=True)
class _State:
    """What is decided so far of a request: what it is asked, and what is done to it."""

    asked: tuple[HeaderMatch, ...] = ()
    abort: Abort | None = None
    limit: RateLimit | None = None
    ruling: Ruling | None = None

    @property
    def denied(self) -> bool:
        """Whoever sends it."""
        return self.ruling is not None and self.ruling.allowed is False


class _Splitter:
    def __init__(self, port: HttpPort, client: Client | None) -> None:
        self._port, self._client = port, client

    def split(self, route: Route, host: str, index: int) -> Iterator[tuple[Route, Ruling | None]]:
        """The cases of a route, each with what authorization says."""
        found = ordered_effects(route, self._port)
        limit = found.limit
        if limit is not None:
            own = limit is route.rate_limit
            limit = replace(limit, bucket=self._bucket(limit, own=own, host=host, index=index))
        plain = replace(route, abort=None, rate_limit=None, rbac=(), guards=())
        if route.beyond:
            yield plain, None
            return
        try:
            states = self._states(found, limit)
        except BeyondError as error:
            yield replace(plain, beyond=(str(error),)), None
            return
        for one in states:
            match = replace(route.match, headers=(*route.match.headers, *one.asked))
            case = replace(
                plain,
                match=match,
                action=DENIED if one.denied else route.action,
                abort=one.abort,
                rate_limit=one.limit,
            )
            yield case, one.ruling

    def _states(self, found: Effects, limit: RateLimit | None) -> list[_State]:
        if found.beyond:
            raise BeyondError(found.beyond)
        return list(self._steps(found.steps, _State(), found.abort, limit, found.rules))

    def _bucket(self, limit: RateLimit, *, own: bool, host: str, index: int) -> str:
        """The name of the bucket: of the port, of a virtual host or of a route, as it was configured."""
        where = f"{self._port.listener} {self._port.address} {self._port.port}"
        if own:
            where += f" {host}" if limit.inherited else f" {host} {index}"
        return where

    def _steps(
        self,
        steps: tuple[Step, ...],
        state: _State,
        abort: Abort | None,
        limit: RateLimit | None,
        rules: tuple[Rbac, ...],
    ) -> Iterator[_State]:
        if not steps:
            yield state
            return
        for one in self._step(steps[0], state, abort, limit, rules):
            if one.denied:
                yield one
            else:
                yield from self._steps(steps[1:], one, abort, limit, rules)

    def _step(
        self,
        step: Step,
        state: _State,
        abort: Abort | None,
        limit: RateLimit | None,
        rules: tuple[Rbac, ...],
    ) -> Iterator[_State]:
        if step is Step.RBAC:
            for case in rulings(rules, self._port, self._client):
                if case.by_client:
                    check_ruling(case.ruling, acts_before=bool(state.limit or state.abort))
                ruling = case.ruling if rules else None
                yield replace(state, asked=(*state.asked, *case.asked), ruling=ruling)
        elif step is Step.RATE_LIMIT:
            yield replace(state, limit=limit)
        elif abort is None or not abort.headers:
            yield replace(state, abort=abort)
        else:
            bare = replace(abort, headers=())
            yield replace(state, asked=(*state.asked, *abort.headers), abort=bare)
            yield state
