# SPDX-License-Identifier: Apache-2.0
"""Real datagrams: connected and unconnected sockets, who answers, and from where it seems to come."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runtime.kernel.datapath import DataPath
from runtime.kernel.netns import netns_cookie
from runtime.model.mesh import Protocol, ServicePort, Workload
from tests.dataplane.fixtures import Publish
from tests.dataplane.world import NOWHERE, VIP4, VIP6, Agent, World, chi_square, refusal, serving
from tests.tables.tables_model import service

pytestmark = pytest.mark.root

DNS = (ServicePort(service_port=53, protocol=Protocol.UDP),)
THREE = ((4, "127.0.0.1", "one"), (4, "127.0.0.2", "two"), (4, "127.0.0.3", "three"))
LIMIT_2 = 27.6  # chi-square with 2 degrees of freedom: beyond it once in a million runs


def endpoint(name: str, host: str, port: int, **extra: Any) -> Workload:
    return serving(name, host, {("a", 53): port}, protocol=Protocol.UDP, **extra)


def dns(name: str, *addresses: str) -> Any:
    made = service(name, *addresses)
    return type(made)(name=name, namespace="ns", hostname=name, addresses=made.addresses, ports=DNS)


def publish_dns(publish: Publish, *workloads: Workload) -> None:
    publish(*workloads, services=(dns("a", VIP4, VIP6),))


def test_an_unconnected_socket_is_answered_by_the_service(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), kind="udp")
    publish_dns(publish, endpoint("w1", "127.0.0.1", ports["one"]))
    assert client("send", 4, [[VIP4, 53]]) == [{"answer": "one", "from": [VIP4, 53]}]


def test_an_ipv6_socket_too(world: World, client: Agent, publish: Publish) -> None:
    ports = world.serve((4, "127.0.0.1", "four"), (6, "::1", "six"), kind="udp")
    publish_dns(
        publish,
        endpoint("w4", "127.0.0.1", ports["four"]),
        endpoint("w6", "::1", ports["six"]),
    )
    mapped = f"::ffff:{VIP4}"
    assert client("send", 6, [[VIP6, 53], [mapped, 53], [VIP6, 53]]) == [
        {"answer": "six", "from": [VIP6, 53]},
        {"answer": "four", "from": [mapped, 53]},
        {"answer": "six", "from": [VIP6, 53]},
    ]


@pytest.mark.parametrize(
    ("family", "address", "answers"),
    [(4, VIP4, "four"), (6, VIP6, "six"), (6, f"::ffff:{VIP4}", "four")],
)
def test_a_connected_socket_is_connected_to_the_service(
    world: World, client: Agent, publish: Publish, family: int, address: str, answers: str
) -> None:
    ports = world.serve((4, "127.0.0.1", "four"), (6, "::1", "six"), kind="udp")
    publish_dns(
        publish,
        endpoint("w4", "127.0.0.1", ports["four"]),
        endpoint("w6", "::1", ports["six"]),
    )
    assert client("send_connected", family, address, 53) == {
        "answer": answers,
        "from": [address, 53],
        "peer": [address, 53],
    }


def test_a_socket_that_connects_elsewhere_forgets_the_service(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), kind="udp")
    publish_dns(publish, endpoint("w1", "127.0.0.1", ports["one"]))
    other = ["127.0.0.9", 9]
    assert client("reconnect", 4, [VIP4, 53], other) == [[VIP4, 53], other]


def test_a_socket_keeps_its_endpoint_and_sockets_spread(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve(*THREE, kind="udp")
    publish_dns(publish, *(endpoint(name, host, ports[name]) for _, host, name in THREE))
    one_socket = client("send", 4, [[VIP4, 53]] * 40)
    assert len({answer["answer"] for answer in one_socket}) == 1
    many = Counter(client("send", 4, [[VIP4, 53]])[0]["answer"] for _ in range(900))
    assert set(many) == {"one", "two", "three"}
    assert chi_square(many, dict.fromkeys(many, 1)) < LIMIT_2


def test_a_socket_whose_endpoint_goes_gets_another(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve(*THREE, kind="udp")
    made = {name: endpoint(name, host, ports[name]) for _, host, name in THREE}
    publish_dns(publish, *made.values())
    number = client("keep", 4)
    for _ in range(2):
        had = client("send_kept", number, VIP4, 53)["answer"]
        del made[had]
        publish_dns(publish, *made.values())
        answer = client("send_kept", number, VIP4, 53)
        assert answer["answer"] in made
        assert answer["from"] == [VIP4, 53]


def test_one_socket_may_talk_to_many_services(
    world: World, client: Agent, publish: Publish
) -> None:
    names = [f"s{number}" for number in range(12)]
    ports = world.serve(*((4, "127.0.0.1", name) for name in names), kind="udp")
    places = {name: f"10.96.1.{number}" for number, name in enumerate(names)}
    publish(
        *(
            serving(name, "127.0.0.1", {(name, 53): ports[name]}, protocol=Protocol.UDP)
            for name in names
        ),
        services=tuple(dns(name, address) for name, address in places.items()),
    )
    twice = [*names, *names]
    answers = client("send", 4, [[places[name], 53] for name in twice])
    assert answers == [{"answer": name, "from": [places[name], 53]} for name in twice]


def test_a_service_without_endpoints_refuses_at_once(client: Agent, publish: Publish) -> None:
    publish_dns(publish)
    for family, address in ((4, VIP4), (6, VIP6), (6, f"::ffff:{VIP4}")):
        assert client("send", family, [[address, 53]]) == [{"errno": refusal()}]
        assert client("send_connected", family, address, 53) == {"errno": refusal()}


def test_protocols_do_not_mix(world: World, client: Agent, publish: Publish) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), kind="udp")
    publish_dns(publish, endpoint("w1", "127.0.0.1", ports["one"]))
    assert client("ask", 4, VIP4, 53)["errno"] in NOWHERE
    publish(serving("w1", "127.0.0.1", {("a", 80): 1}))
    assert client("send", 4, [[VIP4, 80]])[0]["errno"] in NOWHERE


def test_unmanaged_processes_are_untouched(world: World, client: Agent, publish: Publish) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), kind="udp")
    publish_dns(publish, endpoint("w1", "127.0.0.1", ports["one"]))
    unmanaged = world.agent(world.cgroup())
    assert unmanaged("send", 4, [[VIP4, 53]])[0]["errno"] in NOWHERE
    direct = [["127.0.0.1", ports["one"]]]
    for process in (unmanaged, client):
        assert process("send", 4, direct) == [{"answer": "one", "from": direct[0]}]


def test_a_network_namespace_is_managed_by_its_cookie(
    world: World, datapath: DataPath, publish: Publish, objects: Path
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), (6, "::1", "six"), kind="udp")
    publish_dns(
        publish, endpoint("w4", "127.0.0.1", ports["one"]), endpoint("w6", "::1", ports["six"])
    )
    datapath.enroll_netns(netns_cookie(world.netns, objects=objects))
    inside = world.agent()
    assert inside("send", 4, [[VIP4, 53]]) == [{"answer": "one", "from": [VIP4, 53]}]
    assert inside("send", 6, [[VIP6, 53]]) == [{"answer": "six", "from": [VIP6, 53]}]
    assert inside("send_connected", 4, VIP4, 53)["peer"] == [VIP4, 53]
