# SPDX-License-Identifier: Apache-2.0
"""Small parts by themselves: what is pending, who the node is, a server that does not read."""

from __future__ import annotations

import asyncio

import pytest

from runtime.model.policy import Policy
from runtime.source.istiod.changes import Changes, Known
from runtime.source.istiod.node import Node
from runtime.source.istiod.pending import Pending
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryRequest
from runtime.source.istiod.session import Session, StreamError
from runtime.source.istiod.status import IstiodStatus

KEY = "shop/p"
THERE = Policy(name="p", namespace="shop")


async def taken_or_none(pending: Pending[Changes]):
    """What may be taken now, None when one would have to wait."""
    try:
        async with asyncio.timeout(0.02):
            return await pending.take()
    except TimeoutError:
        return None


async def test_what_is_pending():
    pending = Pending(Changes, known=Known())
    pending.merge(Changes(policies={KEY: None}))
    assert await taken_or_none(pending) is None
    pending.set_whole()
    first = await pending.take()
    assert first.complete
    assert first.removed_policies == ()
    pending.merge(Changes(policies={KEY: THERE}))
    assert (await pending.take()).policies == (THERE,)
    pending.merge(Changes(policies={KEY: None}))
    assert (await pending.take()).removed_policies == (KEY,)


async def test_what_the_consumer_does_not_know_wakes_nobody():
    pending = Pending(Changes, known=Known())
    pending.set_whole()
    pending.merge(Changes(policies={KEY: THERE}))
    await pending.take()
    pending.merge(Changes(policies={KEY: None}))
    await pending.take()
    for state in (THERE, None):
        pending.merge(Changes(policies={KEY: state}))
    assert await taken_or_none(pending) is None
    pending.merge(Changes(refused={"policy shop/p": None}))
    assert await taken_or_none(pending) is None
    pending.merge(Changes(policies={KEY: THERE}))
    assert (await pending.take()).policies == (THERE,)


def test_a_node_as_its_manifest_describes_it():
    node = Node.from_environment(
        {
            "POD_NAME": "kmesh-7",
            "POD_NAMESPACE": "mesh",
            "INSTANCE_IP": "192.0.2.9",
            "NODE_NAME": "worker",
            "SERVICE_ACCOUNT": "kmesh",
            "CLUSTER_ID": "east",
            "NETWORK": "net",
            "ISTIO_VERSION": "1.32.0",
        }
    )
    assert node.id == "ztunnel~192.0.2.9~kmesh-7.mesh~mesh.svc.cluster.local"
    assert node.metadata() == {
        "NAMESPACE": "mesh",
        "CLUSTER_ID": "east",
        "INSTANCE_IPS": "192.0.2.9",
        "MESH_ID": "cluster.local",
        "NETWORK": "net",
        "NODE_NAME": "worker",
        "SERVICE_ACCOUNT": "kmesh",
        "ISTIO_VERSION": "1.32.0",
    }


def test_a_node_that_nothing_is_known_of_says_nothing_more():
    node = Node.from_environment({})
    assert node.id == "ztunnel~0.0.0.0~kmesh.kmesh-system~kmesh-system.svc.cluster.local"
    assert "NODE_NAME" not in node.metadata()
    assert "NETWORK" not in node.metadata()
    assert dict(node.to_wire().metadata) == node.metadata()


async def test_a_server_that_does_not_read_ends_the_stream_instead_of_filling_memory():
    node = Node(name="n", namespace="s")
    session = Session(
        [], node=node, largest_request=1, status=IstiodStatus(), received=lambda *_: None
    )
    for _ in range(1024):
        session.send(DeltaDiscoveryRequest())
    with pytest.raises(StreamError, match="does not read"):
        session.send(DeltaDiscoveryRequest())
    session.close()
    assert [request async for request in session.requests()] == []


def test_the_status_is_plain_values():
    status = IstiodStatus(address="x:1", refused={"a": "b"})
    assert status.to_json()["refused"] == {"a": "b"}
    assert status.to_json()["connected"] is False
