# SPDX-License-Identifier: Apache-2.0
"""Real sockets through connect(): who is reached, how evenly, and who is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.kernel.datapath import DataPath
from runtime.kernel.netns import netns_cookie
from runtime.model.mesh import HealthPolicy, LoadBalancing, Workload
from runtime.source.update import Update
from runtime.tables.services import ServiceTables
from tests.dataplane.fixtures import Publish
from tests.dataplane.world import NOWHERE, VIP4, VIP6, Agent, World, refusal, serving

pytestmark = pytest.mark.root

THREE = ((4, "127.0.0.1", "one"), (4, "127.0.0.2", "two"), (4, "127.0.0.3", "three"))


def endpoint(name: str, host: str, port: int, **extra: Any) -> Workload:
    return serving(name, host, {("a", 80): port}, **extra)


def test_an_ipv4_service_is_answered_by_its_endpoint(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    assert client("ask", 4, VIP4, 80) == {"answer": "one", "peer": [VIP4, 80]}
    assert client("ask", 4, VIP4, 81)["errno"] in NOWHERE  # a port that the service does not have


def test_an_ipv6_service_is_answered_by_its_endpoint(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((6, "::1", "one"))
    publish(endpoint("w1", "::1", ports["one"]), addresses=(VIP6,))
    assert client("ask", 6, VIP6, 80) == {"answer": "one", "peer": [VIP6, 80]}


def test_an_ipv6_socket_reaches_an_ipv4_service_by_its_mapped_address(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    mapped = f"::ffff:{VIP4}"
    assert client("ask", 6, mapped, 80) == {"answer": "one", "peer": [mapped, 80]}


def test_each_family_has_its_own_endpoints(world: World, client: Agent, publish: Publish) -> None:
    ports = world.serve((4, "127.0.0.1", "four"), (6, "::1", "six"))
    publish(
        endpoint("w4", "127.0.0.1", ports["four"]),
        endpoint("w6", "::1", ports["six"]),
        addresses=(VIP4, VIP6),
    )
    assert client("tally", 4, VIP4, 80, 20) == {"four": 20}
    assert client("tally", 6, VIP6, 80, 20) == {"six": 20}
    assert client("tally", 6, f"::ffff:{VIP4}", 80, 20) == {"four": 20}


def test_new_connections_follow_changes_of_endpoints(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve(*THREE)
    one, two, three = (endpoint(name, host, ports[name]) for _, host, name in THREE)
    publish(one, two)
    assert set(client("tally", 4, VIP4, 80, 60)) == {"one", "two"}
    publish(two, three)
    assert set(client("tally", 4, VIP4, 80, 60)) == {"two", "three"}
    publish(three)
    assert client("tally", 4, VIP4, 80, 20) == {"three": 20}


def test_a_service_without_endpoints_refuses_at_once(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    publish(addresses=(VIP4, VIP6))
    assert client("ask", 4, VIP4, 80) == {"errno": refusal()}
    assert client("ask", 6, VIP6, 80) == {"errno": refusal()}
    assert client("ask_nonblocking", 4, VIP4, 80) == refusal()
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    assert client("ask", 4, VIP4, 80)["answer"] == "one"
    publish()
    assert client("ask", 4, VIP4, 80) == {"errno": refusal()}


def test_unhealthy_endpoints_are_used_where_the_service_allows_it(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    sick = endpoint("w1", "127.0.0.1", ports["one"], healthy=False)
    publish(sick)
    assert client("ask", 4, VIP4, 80) == {"errno": refusal()}
    publish(sick, load_balancing=LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL))
    assert client("ask", 4, VIP4, 80)["answer"] == "one"


def test_a_service_that_is_gone_is_no_business_of_ours(
    world: World, client: Agent, datapath: DataPath, tables: ServiceTables, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    datapath.apply(tables.apply(Update(removed_services=("ns/a",))))
    assert client("ask", 4, VIP4, 80)["errno"] in NOWHERE


def test_unmanaged_processes_are_untouched(world: World, client: Agent, publish: Publish) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    for unmanaged in (world.agent(), world.agent(world.cgroup())):
        assert unmanaged("ask", 4, VIP4, 80)["errno"] in NOWHERE
        direct = unmanaged("ask", 4, "127.0.0.1", ports["one"])
        assert direct == {"answer": "one", "peer": ["127.0.0.1", ports["one"]]}
    assert client("ask", 4, VIP4, 80)["answer"] == "one"


def test_other_destinations_of_managed_processes_are_untouched(
    world: World, client: Agent, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), (6, "::1", "six"))
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    direct = client("ask", 4, "127.0.0.1", ports["one"])
    assert direct == {"answer": "one", "peer": ["127.0.0.1", ports["one"]]}
    assert client("ask", 6, "::1", ports["six"])["peer"] == ["::1", ports["six"]]


def test_a_released_cgroup_is_managed_no_more(
    world: World, datapath: DataPath, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    cgroup = world.cgroup()
    agent = world.agent(cgroup)
    for _ in range(2):  # both are idempotent
        datapath.enroll_cgroup(cgroup)
    assert agent("ask", 4, VIP4, 80)["answer"] == "one"
    assert datapath.cgroups == [cgroup]
    for _ in range(2):
        datapath.release_cgroup(cgroup)
    assert agent("ask", 4, VIP4, 80)["errno"] in NOWHERE
    assert datapath.cgroups == []


def test_a_cgroup_below_an_enrolled_one_may_be_enrolled_too(
    world: World, datapath: DataPath, publish: Publish
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"))
    publish(endpoint("w1", "127.0.0.1", ports["one"]))
    above = world.cgroup()
    below = world.cgroup(above)
    datapath.enroll_cgroup(above)
    datapath.enroll_cgroup(below)
    agent = world.agent(below)
    assert agent("ask", 4, VIP4, 80) == {"answer": "one", "peer": [VIP4, 80]}


def test_a_network_namespace_is_managed_by_its_cookie(
    world: World, datapath: DataPath, publish: Publish, objects: Path
) -> None:
    ports = world.serve((4, "127.0.0.1", "one"), (6, "::1", "six"))
    publish(
        endpoint("w4", "127.0.0.1", ports["one"]),
        endpoint("w6", "::1", ports["six"]),
        addresses=(VIP4, VIP6),
    )
    with World() as other:
        outside, inside = other.agent(), world.agent()
        datapath.enroll_netns(netns_cookie(world.netns, objects=objects))
        assert inside("ask", 4, VIP4, 80) == {"answer": "one", "peer": [VIP4, 80]}
        assert inside("ask", 6, VIP6, 80) == {"answer": "six", "peer": [VIP6, 80]}
        assert outside("ask", 4, VIP4, 80)["errno"] in NOWHERE
        datapath.release_netns(netns_cookie(world.netns, objects=objects))
        assert inside("ask", 4, VIP4, 80)["errno"] in NOWHERE
        assert datapath.namespaces == []
