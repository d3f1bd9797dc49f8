# SPDX-License-Identifier: Apache-2.0
"""Waypoints: a header tells an unmodified Envoy where a connection was going; or nobody is told."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from runtime.bpf.maps import BpfMap
from runtime.kernel.datapath import DataPath
from runtime.kernel.sockets import socket_pin
from runtime.model.mesh import (
    AppProtocol,
    NamespacedHostname,
    Protocol,
    Service,
    ServicePort,
    Waypoint,
    Workload,
)
from runtime.source.update import Update
from runtime.tables.layout import SOCKET_DIGESTS
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from runtime.tables.waypoints import bypassing
from tests.dataplane.world import (
    VIP4,
    VIP6,
    Agent,
    World,
    expect_shares,
    refusal,
    serving,
    wait_for,
)
from tests.tables.tables_model import service

pytestmark = pytest.mark.root

PORT = 15019
MAPPED = f"::ffff:{VIP4}"
THROUGH = Waypoint(destination=NamespacedHostname("ns", "wp"), port=PORT)
NOOP = 4
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def http_service(*, through: bool = True) -> Service:
    ports = (
        ServicePort(service_port=80, app_protocol=AppProtocol.HTTP11),
        ServicePort(service_port=3306, app_protocol=AppProtocol.TCP),
    )
    made = replace(service("a", VIP4, VIP6), ports=ports)
    return replace(made, waypoints=(THROUGH,) if through else ())


def instances(*hosts: str, port: int = PORT) -> tuple[Workload, ...]:
    return tuple(serving(f"wp {host}", host, {("wp", PORT): port}) for host in hosts)


def client_at(address: str) -> Workload:
    """This node's workload, which is what its address says."""
    return Workload(
        uid="client", name="client", namespace="shop", addresses=(ip_address(address),),
        node="n1", service_account="cart",
    )  # fmt: skip


def publish(
    path: DataPath, tables: ServiceTables, *workloads: Workload, through: bool = True
) -> None:
    services = (http_service(through=through), service("wp", ports=(PORT,)))
    path.apply(tables.apply(Update(services=services, workloads=workloads, complete=True)))


@pytest.fixture
def here() -> ServiceTables:
    return ServiceTables(place=Place(node="n1"))


# What is on the wire.


def parse(header: bytes) -> dict[str, Any]:
    """A PROXY v2 header as its specification lays it out."""
    assert header[:12] == SIGNATURE
    assert header[12] == 0x21
    size = {0x11: 4, 0x21: 16}[header[13]]
    length = int.from_bytes(header[14:16], "big")
    at = 16 + 2 * size
    tlvs, place = {}, at + 4
    while place < 16 + length:
        room = int.from_bytes(header[place + 1 : place + 3], "big")
        tlvs[header[place]] = header[place + 3 : place + 3 + room]
        place += 3 + room
    assert place == 16 + length
    return {
        "source": str(ip_address(header[16 : 16 + size])),
        "destination": str(ip_address(header[16 + size : at])),
        "port": int.from_bytes(header[at + 2 : at + 4], "big"),
        "tlvs": tlvs,
        "rest": header[16 + length :],
    }


# Socket family, address connected to, the service's address, the waypoint's and the source.
MAPPED_WAY = (6, MAPPED, VIP4, "127.0.0.1")
WAYS = [(4, VIP4, VIP4, "127.0.0.1"), MAPPED_WAY, (6, VIP6, VIP6, "::1")]
IDENTITY = {0xD0: b"spiffe://cluster.local/ns/shop/sa/cart"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("identity", [IDENTITY, {}])
def test_the_header_says_where_from_where_to_and_who(
    world: World,
    client: Agent,
    datapath: DataPath,
    here: ServiceTables,
    way: tuple[int, str, str, str],
    identity: dict[int, bytes],
) -> None:
    family, address, shown, host = way
    port = world.agent()("serve_echo", 6 if ":" in host else 4, host)
    publish(datapath, here, *instances(host, port=port), *([client_at(host)] if identity else []))
    chunks = ["GET / HTTP/1.1\r\n", "Host: x\r\n", "\r\n"]
    found = parse(bytes.fromhex(client("exchange", family, address, 80, chunks, 1 << 20)))
    assert found["rest"] == "".join(chunks).encode()
    assert (found["source"], found["destination"], found["port"]) == (host, shown, 80)
    assert {kind: text for kind, text in found["tlvs"].items() if kind != NOOP} == identity


def test_a_long_first_message_arrives_whole(
    world: World, client: Agent, datapath: DataPath, here: ServiceTables
) -> None:
    port = world.agent()("serve_echo", 4, "127.0.0.1")
    publish(datapath, here, *instances("127.0.0.1", port=port))
    chunks = [f"{number:08}" * 20_000 for number in range(5)]
    found = parse(bytes.fromhex(client("exchange", 4, VIP4, 80, chunks, 1 << 20)))
    assert found["rest"] == "".join(chunks).encode()


def test_a_workloads_own_waypoint_is_for_who_asks_for_the_workload(
    world: World, datapath: DataPath, here: ServiceTables
) -> None:
    """Managed twice over, as the programs of both cgroups see every connection."""
    outer = world.cgroup()
    inner = world.cgroup(outer)
    for cgroup in (outer, inner):
        datapath.enroll_cgroup(cgroup)
    client, pod = world.agent(inner), "10.244.0.5"
    world.add_address(f"{pod}/32")
    waypoint, backend = world.agent()("serve_echo", 4, "127.0.0.1"), world.serve((4, pod, "pod"))
    own = replace(serving("w", pod, {("a", 80): backend["pod"]}), waypoint=THROUGH)
    publish(datapath, here, own, *instances("127.0.0.1", port=waypoint), through=False)
    assert client("ask", 4, VIP4, 80)["answer"] == "pod"
    found = parse(bytes.fromhex(client("exchange", 4, pod, backend["pod"], ["hello"], 1 << 20)))
    assert (found["destination"], found["port"]) == (pod, backend["pod"])
    assert found["rest"] == b"hello"
    publish(datapath, here, replace(own, waypoint=None), through=False)
    assert client("ask", 4, pod, backend["pod"])["answer"] == "pod"


def test_weighted_waypoints_get_their_shares(
    world: World, client: Agent, datapath: DataPath, here: ServiceTables
) -> None:
    hosts = {"one": "127.0.0.1", "two": "127.0.0.2", "half": "127.0.0.3", "none": "127.0.0.4"}
    ports = world.serve(*((4, host, name) for name, host in hosts.items()))
    found = {name: {("wp", PORT): ports[name]} for name in hosts}
    found["half"] = {("light", PORT): ports["half"]}
    found["none"] = {("idle", PORT): ports["none"]}
    workloads = [serving(name, hosts[name], found[name]) for name in hosts]
    waypoints = tuple(
        replace(THROUGH, destination=NamespacedHostname("ns", name), weight=weight)
        for name, weight in {"wp": 80, "light": 20, "idle": 0}.items()
    )
    user = replace(http_service(), waypoints=waypoints)
    services = (user, *(service(name, ports=(PORT,)) for name in ("wp", "light", "idle")))
    update = Update(services=services, workloads=tuple(workloads), complete=True)
    datapath.apply(here.apply(update))

    def sample(times: int) -> dict[str, int]:
        tally: dict[str, int] = client("tally", 4, VIP4, 80, 4000 * times)
        assert tally.keys() == {"one", "two", "half"}
        return tally

    expect_shares(sample, {"one": 40, "two": 40, "half": 20})


def test_a_server_that_speaks_first_is_reached_directly(
    world: World, client: Agent, datapath: DataPath, here: ServiceTables
) -> None:
    ports = world.serve((4, "127.0.0.1", "5.7-MySQL"))
    backend = serving("db", "127.0.0.1", {("a", 3306): ports["5.7-MySQL"]})
    publish(datapath, here, *instances("127.0.0.9"), backend)
    assert client("ask", 4, VIP4, 3306) == {"answer": "5.7-MySQL", "peer": [VIP4, 3306]}
    assert bypassing(http_service()) == (3306,)


def test_no_instance_is_a_clear_refusal(
    client: Agent, datapath: DataPath, here: ServiceTables
) -> None:
    publish(datapath, here, serving("w", "127.0.0.1", {("a", 80): 1}))
    assert client("ask", 4, VIP4, 80) == {"errno": refusal()}


# With a real Envoy.


def envoy_config(listen: list[str], backend: int) -> dict[str, Any]:
    """A waypoint as anyone would write it: who was going elsewhere finds no filter chain."""
    prefix = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{prefix}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "waypoint",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/denied"}, "direct_response": {"status": 403}},
            {"match": {"prefix": "/"}, "route": {"cluster": "backend"}},
        ]}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": f"{prefix}.http.router.v3.Router"}}],
    }  # fmt: skip
    chain = {
        "filter_chain_match": {"destination_port": 80, "prefix_ranges": [
            {"address_prefix": VIP4, "prefix_len": 32}, {"address_prefix": VIP6, "prefix_len": 128}
        ]},
        "filters": [{"name": "http", "typed_config": manager}],
    }  # fmt: skip
    return {"static_resources": {
        "listeners": [{
            "name": host,
            "address": {"socket_address": {"address": host, "port_value": PORT}},
            "listener_filters": [{"name": "proxy", "typed_config": {
                "@type": f"{prefix}.listener.proxy_protocol.v3.ProxyProtocol"}}],
            "filter_chains": [chain],
        } for host in listen],
        "clusters": [{"name": "backend", "type": "STATIC", "load_assignment": {
            "cluster_name": "backend", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": "127.0.0.1", "port_value": backend}}}}]}]}}],
    }}  # fmt: skip


@pytest.fixture
def envoy(world: World, checkout: Path, tmp_path: Path) -> Iterator[int]:
    """An Envoy in the test's namespace, on 127.0.0.1, 127.0.0.2 and ::1; gives the backend's port."""
    backend = world.agent()("serve_http", "127.0.0.1")
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(envoy_config(["127.0.0.1", "127.0.0.2", "::1"], backend)))
    program = checkout / ".venv/bin/envoy"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["nsenter", f"--net={world.netns}", str(program), "-c", str(config),
             "--concurrency", "1", "--base-id", str(os.getpid())],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        probe = world.agent()
        wait_for(lambda: probe("ask_nonblocking", 6, "::1", PORT) in {0, 115}, "Envoy starts")
        wait_for(lambda: "all dependencies initialized" in (tmp_path / "log").read_text(), "Envoy")
        yield backend
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("family", "address"), [(4, VIP4), (6, MAPPED), (6, VIP6)])
def test_an_unmodified_envoy_routes_by_the_original_destination(
    client: Agent, datapath: DataPath, here: ServiceTables, envoy: int, family: int, address: str
) -> None:
    publish(datapath, here, *instances("127.0.0.1", "::1"))
    for _ in range(5):
        assert client("http", family, address, 80, "/b", 3) == [[200, "backend /b"]] * 3
    assert client("http", family, address, 80, "/denied", 2) == [[403, ""]] * 2


def test_an_instance_that_goes_is_replaced_by_another_and_none_by_direct(
    client: Agent, datapath: DataPath, here: ServiceTables, envoy: int
) -> None:
    direct = serving("w", "127.0.0.1", {("a", 80): envoy})
    publish(datapath, here, direct, *instances("127.0.0.1", "127.0.0.2"))
    assert client("http", 4, VIP4, 80, "/denied") == [[403, ""]]
    for host in ("127.0.0.1", "127.0.0.2"):
        publish(datapath, here, direct, *instances(host))
        assert client("http", 4, VIP4, 80, "/denied") == [[403, ""]]
    publish(datapath, here, direct)
    assert client("ask", 4, VIP4, 80) == {"errno": refusal()}
    publish(datapath, here, direct, through=False)
    assert client("http", 4, VIP4, 80, "/denied") == [[200, "backend /denied"]]


def test_once_introduced_a_socket_is_an_ordinary_one(
    client: Agent, datapath: DataPath, here: ServiceTables, envoy: int, pins: Path
) -> None:
    publish(datapath, here, *instances("127.0.0.1"))
    waiting = BpfMap.pinned(socket_pin(pins / "compat", "introductions", SOCKET_DIGESTS))
    counted, got = client("waiting", 4, VIP4, 80)
    assert counted == got > 0  # FIONREAD tells the truth
    wait_for(lambda: not list(waiting.keys()), "the socket has left the map")
    waiting.close()


def test_datagrams_know_no_waypoint(
    world: World, client: Agent, datapath: DataPath, here: ServiceTables
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), kind="udp")
    dns = ServicePort(service_port=53, protocol=Protocol.UDP)
    both = replace(http_service(), ports=(dns,))
    backend = serving("w", "127.0.0.1", {("a", 53): ports["one"]}, protocol=Protocol.UDP)
    datapath.apply(here.apply(Update(services=(both,), workloads=(backend,), complete=True)))
    assert client("send", 4, [[VIP4, 53]]) == [{"answer": "one", "from": [VIP4, 53]}]
