# SPDX-License-Identifier: Apache-2.0
"""A daemon in a mesh of several networks and clusters: it knows its own, and what is not its own."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from tests.launch.conftest import BACKENDS, VIP, Node
from tests.launch.istiod import SOURCE, Istiod
from tests.source.istiod.mesh_messages import service, workload

pytestmark = pytest.mark.root

NEAR = "10.96.0.11"


def placed(name: str, host: str, *, serves: tuple[str, ...], where: dict[str, str]) -> Any:
    message = workload(name, host, serves=serves, **where)
    message.workload.locality.region = "eu"
    message.workload.locality.zone = f"eu-{name}"
    return message


def in_network(message: Any, network: str) -> Any:
    for address in message.service.addresses:
        address.network = network
    return message


def mesh(*, strict: bool = True) -> list[Any]:
    """Blue runs here; green in another network and cluster, whose service has the same address."""
    here = {"node": "n1", "network": "net1", "cluster_id": "c1"}
    there = {"node": "n2", "network": "net2", "cluster_id": "c2"}
    green = placed("green", BACKENDS["green"], serves=("other", "web"), where=there)
    green.workload.network_gateway.address.address = ip_address("192.0.2.1").packed
    green.workload.network_gateway.hbone_mtls_port = 15008
    beside = {**here, "node": "n3", "cluster_id": "c2"}
    near = in_network(service("near", NEAR), "net1")
    if strict:
        near.service.load_balancing.mode = "STRICT"
        near.service.load_balancing.routing_preference.append("CLUSTER")
    return [
        in_network(service("web", VIP), "net1"),
        in_network(service("other", VIP), "net2"),
        near,
        placed("blue", BACKENDS["blue"], serves=("web", "near"), where=here),
        green,
        placed("beside", BACKENDS["green"], serves=("near",), where=beside),
    ]


@pytest.mark.parametrize(
    "told", [{"NETWORK": "net1", "CLUSTER_ID": "c1"}, {}], ids=["told", "learned"]
)
def test_its_network_and_cluster_are_told_apart_from_others(
    node: Node, told: dict[str, str]
) -> None:
    Istiod(node, *mesh())
    daemon = node.daemon("--node", "n1", source=SOURCE, **told).wait_ready()
    assert set(node.answers(20)) == {"blue"}
    assert set(node.answers(20, NEAR)) == {"blue"}
    status = node.ask("status")
    assert list(status["sync"]["failed"]) == ["network net2"]
    assert "behind the gateway 192.0.2.1 port 15008" in status["sync"]["failed"]["network net2"]
    place = status["place"]
    assert (place["network"], place["cluster"]) == ("net1", "c1")
    assert place["locality"] == {"region": "eu", "zone": "eu-blue", "subzone": ""}
    assert "another network: net2, behind the gateway 192.0.2.1" in node.kmeshctl(
        "explain", f"{VIP}:80"
    )
    assert daemon.terminate() == 0, daemon.log


def test_a_service_that_may_leave_its_cluster_does(node: Node) -> None:
    """So that the test above fails where STRICT is not heeded."""
    Istiod(node, *mesh(strict=False))
    node.daemon("--node", "n1", source=SOURCE, NETWORK="net1", CLUSTER_ID="c1").wait_ready()
    assert set(node.answers(40, NEAR)) == {"blue", "green"}


def test_a_node_that_learns_late_moves_its_tables(node: Node) -> None:
    """No workload of its own at first: networks are one until one comes."""
    before = [one for one in mesh() if one.workload.name != "blue"]
    istiod = Istiod(node, *before)
    node.daemon("--node", "n1", source=SOURCE).wait_ready()
    assert node.ask("status")["place"]["network"] is None
    assert set(node.answers(10)) == {"green"}
    istiod.put(*mesh())
    node.until(lambda: node.ask("status")["place"]["network"] == "net1", "never learned")
    node.until(lambda: set(node.answers(20)) == {"blue"}, "net2 is still used")
