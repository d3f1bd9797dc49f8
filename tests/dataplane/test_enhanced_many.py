# SPDX-License-Identifier: Apache-2.0
"""Thousands of endpoints of one governed cluster: read, used, replaced, removed."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from runtime.model.http import Balancer, CircuitBreakers, Cluster, Endpoints, HttpEndpoint
from runtime.tables.http_govern import govern
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import Stage, table, to
from tests.dataplane.world import wait_for

pytestmark = pytest.mark.root
MANY = 5000
FIRST = int(IPv4Address("127.1.0.0"))
CLUSTER = Cluster(
    name="many",
    balancer=Balancer.LEAST_REQUEST,
    panic_percent=0,
    breakers=CircuitBreakers(max_requests=1000),
)


def bring(stage: Stage, port: int, numbers: range) -> None:
    """Have the cluster be so many addresses of one server."""
    found = tuple(
        HttpEndpoint(address=IPv4Address(FIRST + n), port=port, weight=1 + n % 3) for n in numbers
    )
    stage.ports.set_cluster(
        "many",
        [Target(one.address, one.port) for one in found],
        governed=govern(CLUSTER, Endpoints(name="many", endpoints=found)),
    )


def members(stage: Stage) -> int:
    return len(list(stage.path.maps["http_members"].items()))


def test_thousands_are_used_replaced_and_removed(stage: Stage) -> None:
    ports = {name: stage.backend("serve", "0.0.0.0", name) for name in ("a", "b")}
    bring(stage, ports["a"], range(MANY))
    stage.route(table(to("/", "many")))
    assert members(stage) == MANY
    assert set(stage.ask(["/x"] * 200)) == {"a"}
    bring(stage, ports["b"], range(MANY))
    assert members(stage) == MANY
    wait_for(lambda: stage.ask(["/x"]) == ["b"], "the others are in force")
    assert set(stage.ask(["/x"] * 200)) == {"b"}
    assert stage.status()["idle"] > 100, "one endpoint got them all"
    bring(stage, ports["a"], range(7))
    assert set(stage.ask(["/x"] * 50)) == {"a"}
    stage.route(table(name="none"))
    stage.ports.keep_clusters(())
    assert members(stage) == 0
