# SPDX-License-Identifier: Apache-2.0
"""Governed clusters through changes: of their rules, of who chooses, of the gate; and under load."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from runtime.control.http import HttpControl
from runtime.control.view import View
from runtime.launch.gate import running
from runtime.model.http import (
    CircuitBreakers,
    Cluster,
    Endpoints,
    Forward,
    HttpEndpoint,
    OutlierDetection,
    WeightedCluster,
)
from runtime.model.http_picture import HttpChange
from runtime.plan.ability import ability
from runtime.source.update import Update
from runtime.tables.http_govern import govern
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.governed_sides import (
    BACKEND,
    Backend,
    OfGate,
    ask,
    cluster,
    install,
    until,
)
from tests.dataplane.test_enhanced_handover import is_gone
from tests.dataplane.world import VIP4, Agent, chi_square, wait_for
from tests.plan.http_model import picture, route

pytestmark = pytest.mark.root
FAR = 40.0  # of one degree of freedom: once in 10^9
_names = count()


@pytest.fixture(scope="module")
def agent(shared_stage: Stage) -> Agent:
    shared_stage.renew()
    return shared_stage.world.agent(script=BACKEND)


@pytest.fixture
def servers(agent: Agent) -> Backend:
    """With a name that no other test's have, which is that of its cluster too."""
    return Backend(agent, f"c{next(_names)}")


def hold(side: OfGate, servers: Backend, key: str) -> int:
    number, target = side.connect(), f"/{servers.name}/hold/{servers.key(key)}"
    side.send(number, target)
    wait_for(lambda: target in servers.counts(), f"{key} has come")
    return number


def test_a_bound_that_is_raised_holds_at_once(shared_stage: Stage, servers: Backend) -> None:
    side, name, port = OfGate(shared_stage), servers.name, servers.start("a")
    install(shared_stage, [cluster(name, [port], breakers={"max_requests": 1})])
    first = hold(side, servers, "one")
    assert ask(side, f"/{name}/status/200") == ["overflow"]
    install(shared_stage, [cluster(name, [port], breakers={"max_requests": 2})])
    assert ask(side, f"/{name}/status/200") == ["200"]
    second = hold(side, servers, "two")
    assert ask(side, f"/{name}/status/200") == ["overflow"]
    servers.release("one")
    servers.release("two")
    assert [side.read(first), side.read(second)] == ["200", "200"]


OUT = {"consecutive_5xx": 2, "max_ejection_percent": 100, "base_ejection_time": "300s"}


def test_who_is_ejected_stays_so_when_others_come(shared_stage: Stage, servers: Backend) -> None:
    side, name = OfGate(shared_stage), servers.name
    ports = [servers.start("a")]
    install(shared_stage, [cluster(name, ports, outlier=OUT)])
    assert ask(side, *[f"/{name}/status/500"] * 3) == ["500", "500", "nobody"]
    ports.append(servers.start("b"))
    install(shared_stage, [cluster(name, ports, outlier=OUT)])
    assert set(ask(side, *[f"/{name}/status/200"] * 8)) == {"200"}
    assert servers.served() == {"a": 2, "b": 8}
    install(shared_stage, [cluster(name, ports[:1], outlier=OUT)])
    assert ask(side, f"/{name}/status/200") == ["nobody"]


def test_the_kernel_takes_over_and_hands_back(shared_stage: Stage, servers: Backend) -> None:
    """Nobody is without an endpoint meanwhile, and none of the capped connections is the kernel's."""
    side, name, port = OfGate(shared_stage), servers.name, servers.start("a")
    number = side.connect()
    for bound in (1, None, 2, None):
        if bound:
            install(shared_stage, [cluster(name, [port], breakers={"max_connections": bound})])
        else:
            shared_stage.ports.set_cluster(name, targets_of(port))
        before = shared_stage.taken()
        for _ in range(20):
            side.send(number, f"/{name}/status/200")
            assert side.read(number) == "200"
        assert (shared_stage.taken() > before) == (bound is None)
    assert servers.accepted <= 2 * 2


def targets_of(port: int) -> list[Target]:
    return [Target("127.0.0.1", port)]


def test_a_choice_among_clusters_is_made_once(shared_stage: Stage, servers: Backend) -> None:
    side, name = OfGate(shared_stage), servers.name
    bounded, free = servers.start("bounded"), servers.start("free")
    install(shared_stage, [cluster(name, [bounded], breakers={"max_requests": 100})])
    shared_stage.ports.set_cluster(f"{name}-free", targets_of(free))
    both = table(to("/", (name, 1), (f"{name}-free", 1)))
    written = shared_stage.ports.write(both, gate_chooses={name})
    shared_stage.ports.point(VIP4, PORT, written)
    assert set(ask(side, *[f"/{name}/status/200"] * 1200)) == {"200"}
    assert chi_square(servers.served(), {"bounded": 1, "free": 1}) < FAR


def test_an_idle_connection_counts_for_the_next_gate_too(
    shared_stage: Stage, servers: Backend, tmp_path: Path
) -> None:
    side, name = OfGate(shared_stage), servers.name
    limits: dict[str, Any] = {
        "breakers": {"max_connections": 1},
        "max_requests_per_connection": 3,
    }
    install(shared_stage, [cluster(name, [servers.start("a")], **limits)])
    assert ask(side, *[f"/{name}/status/200"] * 2) == ["200"] * 2
    old = next_gate(shared_stage, tmp_path)
    wait_for(lambda: is_gone(old), "the old gate has ended")
    first = hold(side, servers, "one")
    assert servers.accepted == 1
    second = side.connect()
    side.send(second, f"/{name}/status/200")
    wait_for(lambda: shared_stage.status()["pending"] == 1, "it waits")
    servers.release("one")
    assert [side.read(first), side.read(second)] == ["200", "200"]
    assert servers.accepted == 2  # the first had served three


def test_who_is_ejected_is_so_for_the_next_gate_too(
    shared_stage: Stage, servers: Backend, tmp_path: Path
) -> None:
    """And how often it has failed in a row, of who is not."""
    side, name = OfGate(shared_stage), servers.name
    ports = [servers.start("a"), servers.start("b")]
    install(shared_stage, [cluster(name, ports, outlier=OUT)])
    first = ask(side, *[f"/{name}/status/500"] * 3)  # in turn: one has failed twice, the other once
    assert first == ["500"] * 3
    assert side.seen()["out"] == 1
    old = next_gate(shared_stage, tmp_path)
    wait_for(lambda: is_gone(old), "the old gate has ended")
    assert side.seen()["out"] == 1
    served = servers.served()
    assert ask(side, *[f"/{name}/status/500"] * 2) == ["500", "nobody"]
    out, other = sorted(served, key=lambda one: -served[one])
    assert servers.served() == {out: 2, other: 2}
    assert side.seen()["out"] == 2


def test_who_waits_is_served_by_the_gate_that_goes(
    shared_stage: Stage, servers: Backend, tmp_path: Path
) -> None:
    side, name = OfGate(shared_stage), servers.name
    install(shared_stage, [cluster(name, [servers.start("a")], breakers={"max_connections": 1})])
    first = hold(side, servers, "one")
    second = side.connect()
    side.send(second, f"/{name}/status/201")
    until(side, "pending", 1)
    old = next_gate(shared_stage, tmp_path)
    servers.release("one")
    assert [side.read(first), side.read(second)] == ["200", "201"]
    wait_for(lambda: is_gone(old), "the old gate has ended")
    assert ask(side, f"/{name}/status/202") == ["202"]


def next_gate(stage: Stage, directory: Path) -> int:
    """The number of the process that hands over."""
    old = running(stage.place)
    assert old
    program = Path(shutil.copy(stage.program, directory / "next"))
    stage.place = replace(stage.place, program=program)
    assert stage.start_gate() != old
    return old


def test_a_large_request_waits_for_its_connection(shared_stage: Stage, servers: Backend) -> None:
    side, name = OfGate(shared_stage), servers.name
    install(shared_stage, [cluster(name, [servers.start("a")], breakers={"max_connections": 1})])
    first = hold(side, servers, "one")
    size = 3_000_000
    head = f"POST /{name}/status/201 HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
    second = side.connect()
    shared_stage.client("send", second, head)
    until(side, "pending", 1)
    servers.release("one")
    assert side.read(first) == "200"
    shared_stage.client("send", second, "x" * size)
    assert side.read(second) == "201"


def test_many_at_once_are_served_or_refused_and_nothing_is_left(
    shared_stage: Stage, servers: Backend
) -> None:
    side, name = OfGate(shared_stage), servers.name
    breakers = {"max_connections": 3, "max_pending_requests": 5, "max_requests": 6}
    ports = [servers.start("a"), servers.start("b")]
    install(shared_stage, [cluster(name, ports, breakers=breakers)])
    numbers = [side.connect() for _ in range(30)]
    seen: Counter[str] = Counter()
    for turn in range(20):
        for number in numbers:
            side.send(number, f"/{name}/status/200")
        for place, number in enumerate(numbers):
            if (turn + place) % 7:
                seen[side.read(number)] += 1
                continue
            side.leave(number)
            numbers[place] = side.connect()
    assert seen["200"] > 0
    assert seen.keys() <= {"200", "overflow"}  # how many at a time is the machine's affair
    until(side, "pending", 0)
    held = [hold(side, servers, str(key)) for key in range(2)]  # at each endpoint one
    for key in range(2):
        servers.release(str(key))
    assert [side.read(number) for number in held] == ["200"] * 2


def test_a_storm_through_two_connections(shared_stage: Stage) -> None:
    """Each response belongs to its request, byte by byte, whoever has waited for whom."""
    for name, port in shared_stage.serve("a", "b").items():
        made = Cluster(
            name=name,
            breakers=CircuitBreakers(max_connections=2),
            outlier=OutlierDetection(),
            max_requests_per_connection=7,
        )
        place = HttpEndpoint(address=ip_address("127.0.0.1"), port=port)
        governed = govern(made, Endpoints(name=name, endpoints=(place,)))
        shared_stage.ports.set_cluster(name, [], governed=governed)
    shared_stage.route()
    assert shared_stage.client("storm", VIP4, PORT, 5, 12, 30, 100_000) == []
    wait_for(lambda: shared_stage.status()["pending"] == 0, "nobody waits")


def test_the_controller_leaves_to_the_gate_what_is_the_gates(
    shared_stage: Stage, servers: Backend
) -> None:
    """A route to two clusters: whoever draws the cluster draws it once, also where it has nobody."""
    side, control = OfGate(shared_stage), HttpControl(shared_stage.ports, ability=ability())
    places = [
        HttpEndpoint(address=ip_address("127.0.0.1"), port=servers.start(name)) for name in "cd"
    ]

    def bring(breakers: CircuitBreakers, *endpoints: HttpEndpoint) -> Counter[str]:
        both = route(action=Forward((WeightedCluster("c"), WeightedCluster("d"))))
        about = {"breakers": breakers, "panic_percent": 0}
        http = picture(both, port={"address": ip_address(VIP4)}, cluster=about, endpoints=endpoints)
        other = Cluster(name="d", endpoints_name="d", panic_percent=0)
        where = {"d": Endpoints(name="d", endpoints=(places[1],))}
        http.take(HttpChange(clusters={"d": other}, endpoints=where))
        assert control.program(Update(complete=True), View(http=http)) == {}
        return Counter(ask(side, *["/x/status/200"] * 600))

    before = shared_stage.taken()
    assert bring(CircuitBreakers(), places[0]) == {"200": 600}
    taken = shared_stage.taken()
    assert taken > before
    served = servers.served()
    assert bring(CircuitBreakers(max_requests=9), places[0]) == {"200": 600}
    assert shared_stage.taken() == taken
    now = {name: number - served[name] for name, number in servers.served().items()}
    assert chi_square(now, {"c": 1, "d": 1}) < FAR
    assert chi_square(bring(CircuitBreakers()), {"200": 1, "nobody": 1}) < FAR
    assert shared_stage.taken() == taken
    assert bring(CircuitBreakers(), places[0]) == {"200": 600}
    assert shared_stage.taken() > taken
