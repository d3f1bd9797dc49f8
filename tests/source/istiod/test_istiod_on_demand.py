# SPDX-License-Identifier: Apache-2.0
"""Holding only what was asked for, by network and address."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from runtime.errors import KmeshError
from runtime.model.mesh import NetworkAddress
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.mesh_messages import service, service_name, uid, workload

A = service_name("a")
VIP = NetworkAddress(ip_address("10.96.0.1"))
EAST = NetworkAddress(ip_address("10.244.0.77"), "east")
WEST = NetworkAddress(ip_address("10.244.0.77"), "west")


@pytest.fixture
def by_address(server):
    """Resources that are known by their addresses too, as Istiod's are."""
    server.put(ADDRESS_TYPE, A, service("a", "10.96.0.1"), version="1", aliases=("/10.96.0.1",))
    for network in ("east", "west"):
        message = workload(network, "10.244.0.77", network=network)
        aliases = (f"{network}/10.244.0.77",)
        server.put(ADDRESS_TYPE, uid(network), message, version="1", aliases=aliases)
    return server


async def test_nothing_but_policies_comes_unasked(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    assert follower.updates[0].complete
    assert not follower.services
    assert not follower.workloads
    assert follower.policies.keys() == {"shop/p"}
    hello = by_address.streams[0].hello(ADDRESS_TYPE)
    assert list(hello.resource_names_subscribe) == ["*"]
    assert list(hello.resource_names_unsubscribe) == ["*"]


async def test_what_is_asked_for_comes_and_stays_up_to_date(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    assert await follower.source.demand(VIP)
    await follower.until(lambda: A in follower.services)
    changed = service("a", "10.96.0.1", ports={80: 8081})
    by_address.put(ADDRESS_TYPE, A, changed, version="2", aliases=("/10.96.0.1",))
    by_address.push()
    await follower.until(lambda: follower.services[A].ports[0].target_port == 8081)
    assert not follower.workloads


async def test_networks_are_told_apart(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    assert await follower.source.demand(EAST)
    await follower.until(lambda: uid("east") in follower.workloads)
    assert uid("west") not in follower.workloads


async def test_what_is_not_there_is_said_at_once(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    nowhere = NetworkAddress(ip_address("203.0.113.99"))
    assert not await follower.source.demand(nowhere)
    assert not await follower.source.demand(nowhere)
    subscribed = [n for r in by_address.streams[0].requests for n in r.resource_names_subscribe]
    assert subscribed.count(str(nowhere)) == 1


async def test_what_comes_and_goes_later_is_known(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    late = NetworkAddress(ip_address("10.244.0.99"))
    assert not await follower.source.demand(late)
    message = workload("late", "10.244.0.99")
    by_address.put(ADDRESS_TYPE, uid("late"), message, version="1", aliases=(str(late),))
    by_address.push()
    await follower.until(lambda: uid("late") in follower.workloads)
    assert await follower.source.demand(late)
    by_address.remove(ADDRESS_TYPE, uid("late"))
    by_address.push()
    await follower.until(lambda: uid("late") not in follower.workloads)
    assert not await follower.source.demand(late)


async def test_many_who_ask_for_one_address_ask_once(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    first = asyncio.ensure_future(follower.source.demand(WEST))
    others = [asyncio.ensure_future(follower.source.demand(WEST)) for _ in range(9)]
    await asyncio.sleep(0)
    first.cancel()
    assert all(await asyncio.gather(*others))
    subscribed = [n for r in by_address.streams[0].requests for n in r.resource_names_subscribe]
    assert subscribed.count(str(WEST)) == 1


async def test_what_was_asked_for_survives_a_reconnect(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    assert await follower.source.demand(VIP)
    await by_address.stop()
    pending = asyncio.ensure_future(follower.source.demand(EAST))
    await follower.until(lambda: not follower.source.status.connected)
    await by_address.start()
    assert await pending
    hello = by_address.streams[-1].hello(ADDRESS_TYPE)
    assert set(hello.resource_names_subscribe) == {"*", str(VIP), str(EAST)}
    assert dict(hello.initial_resource_versions) == {A: "1"}
    await follower.until(lambda: uid("east") in follower.workloads)
    assert A in follower.services


async def test_what_is_released_goes(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    assert await follower.source.demand(VIP)
    await follower.until(lambda: A in follower.services)
    follower.source.release(VIP)
    await by_address.until(
        lambda: list(by_address.streams[0].requests[-1].resource_names_unsubscribe) == [str(VIP)]
    )
    by_address.push()
    await follower.until(lambda: A not in follower.services)
    follower.source.release(VIP)


async def test_releasing_ends_a_wait(by_address, follow):
    follower = follow(on_demand=True)
    await follower.synced()
    await by_address.stop()
    waiting = asyncio.ensure_future(follower.source.demand(VIP))
    await asyncio.sleep(0)
    follower.source.release(VIP)
    assert not await waiting


async def test_a_source_of_the_whole_mesh_has_no_demands(server, follow):
    follower = follow()
    await follower.synced()
    with pytest.raises(KmeshError, match="holds every address already"):
        await follower.source.demand(VIP)
