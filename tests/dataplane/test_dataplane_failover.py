# SPDX-License-Identifier: Apache-2.0
"""A waypoint's instance that dies while it is still listed: connections go to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernel.datapath import DataPath
from runtime.model.mesh import NamespacedHostname
from runtime.source.update import Update
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from tests.dataplane.envoys import Envoys
from tests.dataplane.test_dataplane_waypoint import (
    PORT,
    THROUGH,
    envoy_config,
    http_service,
    instances,
    parse,
    publish,
)
from tests.dataplane.world import VIP4, Agent, World, refusal, serving, wait_for
from tests.tables.tables_model import service

pytestmark = pytest.mark.root

ONE, TWO = "127.0.0.1", "127.0.0.2"
DENIED = [[403, ""]]


@pytest.fixture
def here() -> ServiceTables:
    return ServiceTables(place=Place(node="n1"))


@pytest.fixture
def envoys(world: World, checkout: Path, tmp_path: Path) -> Iterator[Envoys]:
    program = checkout / ".venv/bin/envoy"
    made = Envoys(world, program, scratch=tmp_path, config=envoy_config)
    yield made
    made.close()


def outcomes(client: Agent, times: int) -> Counter[str]:
    found = (client("http_or_errno", 4, VIP4, 80, "/denied") for _ in range(times))
    return Counter(str(one) for one in found)


def test_a_killed_envoy_costs_one_connection_and_is_used_again_when_it_is_back(
    client: Agent, datapath: DataPath, here: ServiceTables, envoys: Envoys
) -> None:
    for host in (ONE, TWO):
        envoys.start(host)
    publish(datapath, here, *instances(ONE, TWO))
    assert outcomes(client, 30) == {str(DENIED): 30}
    envoys.kill(ONE)  # and nobody tells the control plane
    after = outcomes(client, 60)
    assert after[str(DENIED)] >= 59
    facts = datapath.waypoints()
    assert [(one.address, one.port) for one in facts.barred] == [(ONE, PORT)]
    assert facts.unreached == 60 - after[str(DENIED)] == 1
    assert facts.diverted > 10
    envoys.start(ONE)

    def is_back() -> bool:
        assert outcomes(client, 1) == {str(DENIED): 1}
        return not datapath.waypoints().barred

    wait_for(is_back, "the bar is lifted")
    before = datapath.waypoints().diverted
    assert outcomes(client, 30) == {str(DENIED): 30}
    assert datapath.waypoints().diverted == before


def test_where_all_are_dead_the_error_is_theirs_and_the_first_that_is_back_is_used(
    client: Agent, datapath: DataPath, here: ServiceTables, envoys: Envoys
) -> None:
    publish(datapath, here, *instances(ONE, TWO))
    assert outcomes(client, 6) == {str(111): 6}
    envoys.start(TWO)
    wait_for(lambda: str(DENIED) in outcomes(client, 1), "the one that is back is found")


def test_another_is_found_whatever_the_weights_are(
    world: World, client: Agent, datapath: DataPath, here: ServiceTables
) -> None:
    """The dead one has nearly all of the weight, and a weight class of its own."""
    port = world.serve((4, TWO, "alive"))["alive"]
    heavy, light = (
        replace(THROUGH, destination=NamespacedHostname("ns", name), weight=weight)
        for name, weight in (("wp", 999), ("light", 1))
    )
    alive = serving("alive", TWO, {("light", PORT): port})
    services = (
        replace(http_service(), waypoints=(heavy, light)),
        service("wp", ports=(PORT,)),
        service("light", ports=(PORT,)),
    )
    update = Update(services=services, workloads=(*instances(ONE), alive), complete=True)
    datapath.apply(here.apply(update))
    tally = client("tally", 4, VIP4, 80, 100)
    assert tally["alive"] == 100 - tally.get("errno 111", 0) >= 98


def test_one_that_drops_everything_is_avoided_before_anybody_times_out(
    world: World, client: Agent, datapath: DataPath, here: ServiceTables
) -> None:
    port = world.serve((4, TWO, "alive"))["alive"]
    world.swallow("10.244.9.9")
    alive = serving("alive", TWO, {("wp", PORT): port})
    publish(datapath, here, alive, *instances("10.244.9.9", port=port))
    wait_for(lambda: client("begin", 4, VIP4, 80), "a connection to the dead one")
    wait_for(
        lambda: len(datapath.waypoints().barred) == 1, "a second without an answer", seconds=10
    )
    assert client("tally", 4, VIP4, 80, 40) == {"alive": 40}


def test_who_finds_no_room_for_a_header_is_counted_and_the_next_are_refused(
    world: World, objects: Path, pins: Path, here: ServiceTables
) -> None:
    path = DataPath.open(objects, pins=pins, sizes={"introductions": 1})
    cgroup = world.cgroup()
    path.enroll_cgroup(cgroup)
    client = world.agent(cgroup)
    port = world.agent()("serve_echo", 4, ONE)
    publish(path, here, *instances(ONE, port=port))
    first = client("hold", 4, VIP4, 80)  # says nothing, and keeps its room
    assert path.waypoints().unintroduced == 0
    second = client("hold", 4, VIP4, 80)
    assert path.waypoints().unintroduced == 1
    assert client("ask_nonblocking", 4, VIP4, 80) == refusal()
    assert path.waypoints().refused == 1
    for number in (first, second):
        client("let_go", number)

    def works() -> bool:
        if client("ask_nonblocking", 4, VIP4, 80) == refusal():
            return False
        return bool(parse(bytes.fromhex(client("exchange", 4, VIP4, 80, ["x"], 1 << 20))))

    wait_for(works, "there is room again")
    path.destroy()
