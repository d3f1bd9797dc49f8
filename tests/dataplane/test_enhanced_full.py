# SPDX-License-Identifier: Apache-2.0
"""Maps that are full: no request of a service with routes ever gets to an endpoint past them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from runtime.control.explain_request import HttpQuestion, explain_request
from runtime.control.http import HttpControl
from runtime.control.view import View
from runtime.kernel.http_tables import HttpTables
from runtime.model.http import (
    Balancer,
    Cluster,
    DirectResponse,
    Endpoints,
    Forward,
    HashKind,
    HashPolicy,
    HeaderMatch,
    HttpEndpoint,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    TextKind,
    TextMatch,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange
from runtime.plan.ability import ability
from runtime.source.update import Update
from runtime.tables.enhanced_layout import Frontend, FrontendKey
from runtime.tables.http_ports import Target, mapped
from runtime.tables.services import ServiceTables
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import refusal, serving
from tests.tables.tables_model import service

pytestmark = pytest.mark.root

SERVICES, ROOM = 6, 4
UNROUTED = "10.96.2.1"
SHUT = [503, "there is no room for the service's routes"]


def vip(number: int) -> str:
    return f"10.96.1.{number + 1}"


def own_table(number: int, version: int) -> RouteTable:
    """Nothing of it is like anything of another's."""
    mark = f"{number}-{version}"
    asked = HeaderMatch(f"x-{mark}", TextMatch(TextKind.EXACT, mark))
    match = RouteMatch(PathMatch(PathKind.PREFIX, f"/h{mark}"), (asked,))
    body = RouteMatch(PathMatch(PathKind.PREFIX, f"/body{mark}"))
    return table(
        Route(match=match, action=Forward((WeightedCluster("a"),))),
        Route(match=body, action=DirectResponse(200, mark.encode())),
        to("/a", "a"),
        name=f"t{number}",
    )


class Mesh:
    """Services on a stage, whose endpoints no route leads to."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.view = stage, View()
        ports = {name: stage.backend("serve", "127.0.0.1", name) for name in ("a", "past")}
        self.a = HttpEndpoint(address=ip_address("127.0.0.1"), port=ports["a"])
        names = [(f"s{n}", vip(n)) for n in range(SERVICES)] + [("plain", UNROUTED)]
        served = serving("w", "127.0.0.1", {(name, PORT): ports["past"] for name, _ in names})
        self._services = Update(
            services=tuple(service(name, address) for name, address in names),
            workloads=(served,),
            complete=True,
        )
        stage.path.apply(ServiceTables().apply(self._services))
        self.control = HttpControl(stage.ports, ability=ability())
        self.other = Target("127.0.0.1", ports["past"])

    def bring(self, tables: Mapping[str, RouteTable], **cluster: Any) -> dict[str, str]:
        ports = [
            HttpPort(listener=f"l{n}", address=ip_address(vip(n)), port=PORT, table=f"t{n}")
            for n in range(SERVICES)
            if f"t{n}" in tables
        ]
        http = HttpChange(
            listeners={one.listener: Listener(name=one.listener, ports=(one,)) for one in ports},
            tables=tables,
            clusters={"a": Cluster(name="a", endpoints_name="a", **cluster)},
            endpoints={"a": Endpoints(name="a", endpoints=(self.a,))},
            complete=True,
        )
        update = replace(self._services, http=http)
        self.view.take(update)
        return dict(self.control.program(update, self.view))

    def again(self) -> dict[str, str]:
        """As the controller does it while something is behind."""
        return dict(self.control.program(Update(), self.view))

    def ask(self, address: str, target: str) -> list[Any]:
        client = self.stage.client
        number = client("connect", address, PORT)
        answer = client("ask", number, target)
        client("close", number)
        return list(answer[:2])

    def check_refused(self, address: str) -> None:
        with pytest.raises(AssertionError, match=rf"Error\({refusal()}, "):
            self.stage.client("connect", address, PORT)

    def served(self, target: str = "/a") -> list[list[Any]]:
        return [self.ask(vip(number), target) for number in range(SERVICES)]


@contextmanager
def mesh(objects: Path, gate: Path, **sizes: int) -> Iterator[Mesh]:
    with Stage(objects, gate, sizes=sizes) as stage:
        made = Mesh(stage)
        assert made.ask(UNROUTED, "/a") == [200, "past"]
        yield made


def tables(numbers: range, version: int = 0) -> dict[str, RouteTable]:
    return {f"t{number}": own_table(number, version) for number in numbers}


@pytest.mark.parametrize("full", ["http_graphs", "http_grammars", "http_texts", "http_routes"])
def test_what_has_no_room_is_shut_and_nothing_goes_past_its_routes(
    full: str, all_objects: Path, gate_program: Path
) -> None:
    each = 3 if full == "http_routes" else 1
    with mesh(all_objects, gate_program, **{full: ROOM * each}) as made:
        failed = made.bring(tables(range(SERVICES)))
        assert made.control.is_behind
        assert made.served() == [[200, "a"]] * ROOM + [SHUT] * (SERVICES - ROOM)
        assert failed.keys() == {f"route table t{n}" for n in range(ROOM, SERVICES)}
        for number in range(ROOM, SERVICES):
            why = failed[f"route table t{number}"]
            assert f"all of {vip(number)} port {PORT} is the waypoint's" in why
            assert full in why
        told = explain_request(
            HttpQuestion(address=ip_address(vip(ROOM)), port=PORT, head=b"GET /a HTTP/1.1\r\n\r\n"),
            HttpTables(made.stage.path.maps),
            routes={},
            clusters={},
        )
        assert "the kernel has no room for the service's routes" in told["does"]
        # Tried again in vain, it is as before, and named again.
        assert made.again() == failed
        assert made.served()[ROOM:] == [SHUT] * (SERVICES - ROOM)
        # With all others gone there is room.
        assert made.bring(tables(range(SERVICES - ROOM, SERVICES))) == {}
        assert made.served()[SERVICES - ROOM :] == [[200, "a"]] * ROOM
        assert not made.control.is_behind


def test_a_port_that_cannot_be_pointed_anywhere_is_refused(
    all_objects: Path, gate_program: Path
) -> None:
    with mesh(all_objects, gate_program, http_ports=ROOM) as made:
        failed = made.bring(tables(range(SERVICES)))
        assert failed.keys() == {f"HTTP port {vip(n)}:{PORT}" for n in range(ROOM, SERVICES)}
        assert all("http_ports" in why and "refused meanwhile" in why for why in failed.values())
        for number in range(SERVICES):
            if number < ROOM:
                assert made.ask(vip(number), "/a") == [200, "a"]
            else:
                made.check_refused(vip(number))
        assert made.again() == failed
        # One whose routes go is balanced, as before; the other finds room when others lose theirs.
        last = vip(SERVICES - 1)
        assert made.bring(tables(range(ROOM))) == {}
        assert made.ask(last, "/a") == [200, "past"]
        made.bring(tables(range(SERVICES)))
        made.check_refused(last)
        assert made.bring(tables(range(SERVICES - ROOM, SERVICES))) == {}
        assert made.ask(last, "/a") == [200, "a"]


def test_a_change_of_everything_takes_the_room_of_what_it_replaces(
    all_objects: Path, gate_program: Path
) -> None:
    few = SERVICES + 1
    sizes = {"http_graphs": few, "http_grammars": few, "http_texts": few, "http_routes": 3 * few}
    with mesh(all_objects, gate_program, **sizes) as made:
        assert made.bring(tables(range(SERVICES))) == {}
        assert made.bring(tables(range(SERVICES), version=1)) == {}
        for number in range(SERVICES):
            assert made.ask(vip(number), f"/body{number}-1")[0] == 200
            assert made.ask(vip(number), f"/body{number}-0")[0] == 404


def test_a_table_that_no_port_followed_for_a_while_is_written_again(
    all_objects: Path, gate_program: Path
) -> None:
    with mesh(all_objects, gate_program) as made:
        frontends = made.stage.path.maps["frontends"]
        key = FrontendKey(mapped(vip(0)), PORT.to_bytes(2, "big"), 6).pack()
        value = frontends.lookup(key) or b""
        frontends.update(key, Frontend.unpack(value)._replace(flags=1).pack())
        far = {"t0": table(to("/", "a", beyond=("timeout: 3s",)), name="t0")}
        assert made.bring(far) == {}
        assert made.stage.path.maps["http_ports"].lookup(key) is None, "led to the waypoint"
        frontends.update(key, value)  # which is there no more
        assert made.bring(far) == {}
        told = "it takes a waypoint, and there is none: timeout: 3s"
        assert made.ask(vip(0), "/") == [503, told]


def test_where_nothing_fits_any_more_the_last_good_table_serves(
    all_objects: Path, gate_program: Path
) -> None:
    with mesh(all_objects, gate_program, http_graphs=SERVICES) as made:
        assert made.bring(tables(range(SERVICES))) == {}
        failed = made.bring(tables(range(SERVICES), version=1))
        assert failed
        assert all("what it said before keeps serving" in why for why in failed.values())
        assert made.served() == [[200, "a"]] * SERVICES
        # Also when a daemon takes over that knows nothing of the tables that are there.
        made.control = HttpControl(made.stage.ports, ability=ability())
        assert made.again() == {}  # no picture of HTTP is new: nothing is touched
        assert made.bring(tables(range(SERVICES), version=2)).keys() == failed.keys()
        assert made.served() == [[200, "a"]] * SERVICES


def test_without_room_for_answers_the_gate_gives_them(
    all_objects: Path, gate_program: Path
) -> None:
    def aborting(number: int) -> RouteTable:
        body = RouteMatch(PathMatch(PathKind.PREFIX, "/"))
        route = Route(match=body, action=DirectResponse(403, f"{number}".encode()))
        return table(to("/a", "a"), route, name=f"t{number}")

    with mesh(all_objects, gate_program, http_answers=2) as made:
        assert made.bring({f"t{n}": aborting(n) for n in range(SERVICES)}) == {}
        assert made.served() == [[200, "a"]] * SERVICES
        assert [status for status, _ in made.served("/b")] == [403] * SERVICES


def test_a_cluster_without_room_for_its_ring_keeps_its_endpoints(
    all_objects: Path, gate_program: Path
) -> None:
    hashed = Forward((WeightedCluster("a"),), (HashPolicy(kind=HashKind.HEADER, name="x-who"),))
    with mesh(all_objects, gate_program, http_rings=1) as made:
        made.stage.ports.set_cluster("other", [made.other], hashes=True)
        route = Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/a")), action=hashed)
        failed = made.bring({"t0": table(route, name="t0")}, balancer=Balancer.RING_HASH)
        assert failed.keys() == {"cluster a"}
        assert "http_rings" in failed["cluster a"]
        assert "without hashing" in failed["cluster a"]
        assert made.ask(vip(0), "/a") == [200, "a"]
        assert made.again() == {}, "other is no cluster of a route: its ring went"
