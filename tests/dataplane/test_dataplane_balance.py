# SPDX-License-Identifier: Apache-2.0
"""100,000 connections: uniform and weighted to the statistics, also while endpoints change.

Only the connect programs run here, so that a datagram socket shows which endpoint it was given.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from runtime.bpf.objects import BpfObject
from runtime.kernel.datapath import DataPath
from runtime.kernel.links import Links
from runtime.model.mesh import NetworkAddress, Protocol, Service, ServicePort
from runtime.source.update import Update
from runtime.tables.layout import DIGEST
from runtime.tables.services import ServiceTables
from tests.dataplane.world import VIP4, VIP6, Agent, World, chi_square, serving, wait_for

pytestmark = pytest.mark.root

COUNT = 100_000
# Chi-square by degrees of freedom: a right program is beyond it once in a million runs.
LIMITS = {4: 35.0, 9: 48.0, 99: 179.0}

SERVICE = Service(
    name="a",
    namespace="ns",
    hostname="a",
    addresses=(NetworkAddress(ip_address(VIP4)), NetworkAddress(ip_address(VIP6))),
    ports=(ServicePort(service_port=53, protocol=Protocol.UDP),),
)


def picture(weights: Mapping[str, int]) -> Update:
    return Update(
        services=(SERVICE,),
        workloads=tuple(
            serving(host, host, {("a", 53): 5353}, protocol=Protocol.UDP, capacity=weight)
            for host, weight in weights.items()
        ),
        complete=True,
    )


@pytest.fixture
def shows(world: World, datapath: DataPath, objects: Path, pins: Path) -> Any:
    """A process that sees which endpoint it was given."""
    cgroup = world.cgroup()
    tables, links = pins / "compat" / DIGEST[:16], Links(pins / "compat" / "links")
    for name in ("connect4", "connect6"):
        with BpfObject(objects / "compat" / f"{name}.bpf.o") as opened:
            for shared in opened.maps():
                if not shared.startswith("."):
                    opened.reuse_map(shared, datapath._open.maps[shared].fd)
            opened.load()
            links.attach("cgroup", cgroup, [opened.programs()[f"kmesh_{name}"]])
    assert tables.is_dir()
    yield world.agent(cgroup)
    datapath.release_cgroup(cgroup)


@pytest.mark.parametrize(
    ("family", "address", "hosts"),
    [
        (4, VIP4, [f"127.0.1.{n}" for n in range(1, 11)]),
        (4, VIP4, [f"127.0.1.{n}" for n in range(1, 101)]),
    ],
)
def test_uniform(
    shows: Agent, datapath: DataPath, family: int, address: str, hosts: list[str]
) -> None:
    datapath.apply(ServiceTables().apply(picture(dict.fromkeys(hosts, 1))))
    found = shows("draw", family, address, 53, COUNT)
    assert set(found) == set(hosts)
    assert chi_square(found, dict.fromkeys(hosts, 1)) < LIMITS[len(hosts) - 1]


@pytest.mark.parametrize(
    "weights",
    [
        {"127.0.1.1": 10, "127.0.1.2": 90, "127.0.1.3": 0},
        {"127.0.1.1": 1, "127.0.1.2": 2, "127.0.1.3": 3, "127.0.1.4": 5, "127.0.1.5": 7},
        {"127.0.1.1": 1, "127.0.1.2": 65535},
        {"127.0.1.1": 33, "127.0.1.2": 63, "127.0.1.3": 64, "127.0.1.4": 100, "127.0.1.5": 1},
    ],
)
def test_weighted(shows: Agent, datapath: DataPath, weights: dict[str, int]) -> None:
    datapath.apply(ServiceTables().apply(picture(weights)))
    found = shows("draw", 4, VIP4, 53, COUNT)
    assert set(found) <= {host for host, weight in weights.items() if weight}
    assert chi_square(found, weights) < LIMITS[4]


def test_ipv6_chooses_among_ipv6(shows: Agent, world: World, datapath: DataPath) -> None:
    hosts = [f"fd01::{n}" for n in range(1, 11)]
    for host in hosts:
        world.add_address(f"{host}/128")
    datapath.apply(ServiceTables().apply(picture(dict.fromkeys([*hosts, "127.0.1.1"], 1))))
    found = shows("draw", 6, VIP6, 53, 20_000)
    assert set(found) == set(hosts)
    assert chi_square(found, dict.fromkeys(hosts, 1)) < LIMITS[9]


def test_no_choice_is_wrong_while_endpoints_change(shows: Agent, datapath: DataPath) -> None:
    """Two pictures in turn, as fast as they go; whoever connects gets an endpoint of one of them."""
    one = {f"127.0.1.{n}": 1 + n % 3 for n in range(1, 60)}
    two = {f"127.0.1.{n}": 1 + n % 5 for n in range(40, 50)}
    tables = ServiceTables()
    datapath.apply(tables.apply(picture(one)))
    stop, rounds = threading.Event(), []

    def change() -> None:
        while not stop.is_set():
            for each in (two, one):
                datapath.apply(tables.apply(picture(each)))
            rounds.append(1)

    worker = threading.Thread(target=change)
    worker.start()
    try:
        wait_for(lambda: bool(rounds), "a first round")
        found = shows("draw", 4, VIP4, 53, 30_000)
    finally:
        stop.set()
        worker.join()
    assert len(rounds) > 5
    assert set(found) <= set(one) | set(two)
