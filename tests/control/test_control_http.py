# SPDX-License-Identifier: Apache-2.0
"""Routes into the maps: in which order, at which cost, and what happens where something does not go in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.control.http import HttpControl
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.model.http import (
    Cluster,
    Endpoints,
    Forward,
    HttpEndpoint,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange
from runtime.plan.ability import ability
from runtime.source.update import Update
from runtime.tables.http_ports import Target
from runtime.tables.http_routes import TableTooLargeError

VIP, OTHER = ip_address("10.96.0.10"), ip_address("10.96.0.11")


@dataclass
class Ports:
    """Notes what it is asked to do, in order, and refuses what it is told to."""

    done: list[tuple[str, Any]] = field(default_factory=list)
    refuse: dict[str, Exception] = field(default_factory=dict)
    pointed: set[tuple[str, str]] = field(default_factory=set)

    def _do(self, what: str, about: Any) -> None:
        if what in self.refuse:
            raise self.refuse[what]
        self.done.append((what, about))

    def set_cluster(self, name: str, targets: Iterable[Target], **_how: Any) -> None:
        self._do("cluster", (name, [str(one.address) for one in targets]))

    def keep_clusters(self, names: Iterable[str]) -> None:
        self._do("keep clusters", sorted(names))

    def write(self, table: RouteTable, **_how: Any) -> Any:
        self._do("table", table.name)
        return Written()

    def prepare(self, table: RouteTable, **how: Any) -> Any:
        return self.write(table, **how)

    must_show = False

    def show(self, tables: Sequence[Any]) -> list[Any]:
        self._do("show", len(tables))
        return list(tables)

    def point(self, address: Any, port: int, _written: Any, **_how: Any) -> bytes:
        self._do("port", str(address))
        self.pointed.add(("port", str(address)))
        return self.key_of(address, port)

    @staticmethod
    def is_there(_written: Any) -> bool:
        return True

    def has_table(self, address: Any, _port: int) -> bool:
        return ("port", str(address)) in self.pointed

    @staticmethod
    def key_of(address: Any, port: int) -> bytes:
        return f"{address}:{port}".encode()

    def waypoint_of(self, _address: Any, _port: int) -> int:
        return 0

    def keep_ports(self, keys: Iterable[bytes]) -> None:
        self._do("keep ports", sorted(key.decode() for key in keys))

    def sweep(self, *, in_haste: bool = False) -> None:
        self._do("sweep in haste" if in_haste else "sweep", None)

    def take(self) -> list[tuple[str, Any]]:
        done, self.done = self.done, []
        return done


@dataclass
class Written:
    waypoint: dict[int, str] = field(default_factory=dict)
    partly: dict[int, str] = field(default_factory=dict)


def table(name: str, cluster: str) -> RouteTable:
    match = RouteMatch(PathMatch(PathKind.PREFIX, "/"))
    route = Route(match=match, action=Forward((WeightedCluster(cluster),)))
    return RouteTable(name=name, virtual_hosts=(VirtualHost("all", ("*",), (route,)),))


def endpoints(name: str, *addresses: str) -> Endpoints:
    listed = tuple(HttpEndpoint(address=ip_address(one), port=8080) for one in addresses)
    return Endpoints(name=name, endpoints=listed)


def picture() -> HttpChange:
    """Two services, each with a table of its own that leads to a cluster of its own."""
    ports = {
        name: HttpPort(listener=name, address=address, port=80, table=name)
        for name, address in (("a", VIP), ("b", OTHER))
    }
    return HttpChange(
        listeners={name: Listener(name=name, ports=(port,)) for name, port in ports.items()},
        tables={name: table(name, name) for name in ports},
        clusters={name: Cluster(name=name, endpoints_name=name) for name in ports},
        endpoints={"a": endpoints("a", "10.0.0.1"), "b": endpoints("b", "10.0.0.2")},
        complete=True,
    )


class World:
    def __init__(self) -> None:
        self.ports, self.view = Ports(), View()
        self.control = HttpControl(self.ports, ability=ability())  # type: ignore[arg-type]

    def bring(self, http: HttpChange | None = None, **more: Any) -> dict[str, str]:
        update = Update(http=http, **more)
        self.view.take(update)
        return dict(self.control.program(update, self.view))


@pytest.fixture
def world() -> World:
    made = World()
    assert made.bring(picture()) == {}
    return made


def test_what_is_pointed_at_comes_first_and_goes_last(world: World) -> None:
    order = [what for what, _ in world.ports.take()]
    assert order == ["cluster"] * 2 + ["table"] * 2 + ["show"] + ["port"] * 2 + ["keep ports", "sweep", "keep clusters"]  # fmt: skip


def test_an_endpoint_costs_one_cluster_and_no_table(world: World) -> None:
    world.ports.take()
    assert world.bring(HttpChange(endpoints={"a": endpoints("a", "10.0.0.9")})) == {}
    written = [one for one in world.ports.take() if one[0] in ("cluster", "table")]
    assert written == [("cluster", ("a", ["10.0.0.9"]))]


def test_a_changed_table_is_the_only_one_that_is_compiled(world: World) -> None:
    world.ports.take()
    assert world.bring(HttpChange(tables={"b": table("b", "a")})) == {}
    done = world.ports.take()
    assert [one for one in done if one[0] in ("cluster", "table")] == [("table", "b")]
    assert done[-1] == ("keep clusters", ["a"])


def test_the_same_picture_again_writes_nothing(world: World) -> None:
    world.ports.take()
    world.bring(picture())
    assert not {"cluster", "table"} & {what for what, _ in world.ports.take()}


def test_before_http_is_known_nothing_of_before_is_touched() -> None:
    made = World()
    assert made.bring(complete=True) == {}
    assert made.ports.take() == []


def test_a_listener_that_goes_takes_its_port_and_cluster_along(world: World) -> None:
    world.ports.take()
    world.bring(HttpChange(listeners={"b": None}))
    done = dict(world.ports.take())
    assert done["keep ports"] == ["10.96.0.10:80"]
    assert done["keep clusters"] == ["a"]


def test_a_table_that_is_refused_is_named_and_its_last_state_serves_on(world: World) -> None:
    world.ports.take()
    world.ports.refuse = {"table": KmeshError("no room in http_routes")}
    failed = world.bring(HttpChange(tables={"a": table("a", "b")}))
    assert list(failed) == ["route table a"]
    assert "no room in http_routes" in failed["route table a"]
    assert world.control.is_behind
    done = dict(world.ports.take())
    assert done["keep ports"] == ["10.96.0.10:80", "10.96.0.11:80"]
    assert done["keep clusters"] == ["a", "b"], "the old table still leads there"
    world.ports.refuse = {}
    assert world.bring() == {}  # the empty update with which the controller tries again
    assert ("table", "a") in world.ports.take()
    assert not world.control.is_behind


def test_a_cluster_that_is_refused_is_named(world: World) -> None:
    world.ports.refuse = {"cluster": KmeshError("no room in slots")}
    failed = world.bring(HttpChange(endpoints={"a": endpoints("a", "10.0.0.9")}))
    assert failed == {"cluster a": "no room in slots"}
    world.ports.refuse = {}
    world.ports.take()
    assert world.bring() == {}
    assert ("cluster", ("a", ["10.0.0.9"])) in world.ports.take()


def test_a_table_that_cannot_be_expressed_is_named(world: World) -> None:
    tried: list[str] = []

    def write(which: RouteTable, **_how: Any) -> Written:
        tried.append(which.name)
        if len(tried) == 1:
            raise TableTooLargeError("more states than fit")
        return Written()

    world.ports.write = write  # type: ignore[assignment,method-assign]
    failed = world.bring(HttpChange(tables={"a": table("a", "b")}))
    assert failed == {"route table a": "more states than fit: all of it is the waypoint's"}
    assert tried == ["a", "a"], "requests are to be told, not to be routed by the table of before"
    assert world.bring(workloads=()) == failed, "as long as it is so, it is named"


def test_requests_that_are_not_told_apart_find_the_waypoint(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointed: list[int] = []

    def point(address: Any, port: int, _written: Any, *, waypoint: int) -> bytes:
        pointed.append(waypoint)
        return world.ports.key_of(address, port)

    monkeypatch.setattr(world.ports, "write", lambda *_, **__: Written(partly={0: "no room"}))
    monkeypatch.setattr(world.ports, "waypoint_of", lambda *_: 7)
    monkeypatch.setattr(world.ports, "point", point)
    assert world.bring(HttpChange(tables={"a": table("a", "b")})) == {}
    assert pointed == [7, 0], "the waypoint of one, and none where none is needed"
