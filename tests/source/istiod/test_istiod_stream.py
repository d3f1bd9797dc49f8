# SPDX-License-Identifier: Apache-2.0
"""The conversation on one stream: first sync, changes, refusals."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from runtime.model.mesh import NetworkAddress
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.source.istiod.mesh_messages import policy, service, service_name, uid, workload

A, B = service_name("a"), service_name("b")


async def test_the_first_update_is_the_whole_mesh(server, follow):
    follower = follow()
    await follower.synced()
    first = follower.updates[0]
    assert first.complete
    assert follower.services.keys() == {A, B}
    assert follower.workloads.keys() == {uid("a-1"), uid("a-2"), uid("b-1")}
    assert follower.policies.keys() == {"shop/p"}
    assert follower.services[A].addresses == (NetworkAddress(ip_address("10.96.0.1")),)
    status = follower.source.status
    assert (status.services, status.workloads, status.policies) == (2, 3, 1)
    assert status.synced
    assert status.connected
    assert status.last_response is not None


async def test_an_empty_mesh_is_a_whole_picture_too(server, follow):
    server.world.clear()
    follower = follow()
    await follower.synced()
    assert follower.updates[0].complete
    assert follower.services == {}


async def test_nothing_is_told_before_both_types_are_there(server, follow):
    hold = asyncio.Event()
    answer = server._answer

    def late(stream, request):
        if request.type_url == AUTHORIZATION_TYPE and not hold.is_set():
            return
        answer(stream, request)

    server._answer = late
    follower = follow()
    await follower.until(lambda: follower.source.status.services == 2)
    assert not follower.updates
    hold.set()
    server._answer(server.open[0], server.open[0].hello(AUTHORIZATION_TYPE))
    await follower.synced()
    assert follower.updates[0].complete
    assert follower.policies.keys() == {"shop/p"}


async def test_it_says_who_it_is(server, follow):
    follower = follow()
    await follower.synced()
    stream = server.streams[0]
    hello = stream.requests[0]
    assert hello.node.id == "ztunnel~192.0.2.7~kmesh-x.kmesh-system~kmesh-system.svc.cluster.local"
    assert dict(hello.node.metadata)["CLUSTER_ID"] == "c1"
    assert stream.metadata["clusterid"] == "c1"
    assert "authorization" not in stream.metadata
    assert not hello.resource_names_subscribe
    assert not any(request.HasField("node") for request in stream.requests[1:])


async def test_every_response_is_acknowledged_by_its_nonce(server, follow):
    follower = follow()
    await follower.synced()
    stream = server.streams[0]
    await server.until(lambda: len(stream.acks) == 2)
    assert {a.response_nonce for a in stream.acks} == {r.nonce for r in stream.responses}
    assert follower.source.status.acks == 2


async def test_changes_arrive_alone(server, follow):
    follower = follow()
    await follower.synced()
    server.put(ADDRESS_TYPE, uid("a-3"), workload("a-3", "10.244.0.9", serves=("a",)), version="1")
    server.put(ADDRESS_TYPE, A, service("a", "10.96.0.1", ports={80: 8080, 81: 8081}), version="2")
    server.remove(ADDRESS_TYPE, uid("a-1"))
    server.push()
    await follower.until(lambda: uid("a-3") in follower.workloads)
    update = follower.updates[-1]
    assert not update.complete
    assert [each.uid for each in update.workloads] == [uid("a-3")]
    assert [each.key for each in update.services] == [A]
    assert update.removed_workloads == (uid("a-1"),)
    assert update.removed_services == ()
    assert len(follower.updates) == 2


async def test_a_removed_service_is_told_apart_from_a_workload(server, follow):
    follower = follow()
    await follower.synced()
    server.remove(ADDRESS_TYPE, A)
    server.remove(AUTHORIZATION_TYPE, "shop/p")
    server.push()
    await follower.until(lambda: A not in follower.services and not follower.policies)
    assert follower.source.status.services == 1
    assert len(follower.workloads) == 3


async def test_a_workload_moves_between_services(server, follow):
    follower = follow()
    await follower.synced()
    moved = workload("a-1", "10.244.0.1", serves=("b",))
    server.put(ADDRESS_TYPE, uid("a-1"), moved, version="2")
    server.push()
    await follower.until(lambda: B in follower.workloads[uid("a-1")].services)
    assert A not in follower.workloads[uid("a-1")].services


async def test_the_same_address_in_two_networks(server, follow):
    for network in ("east", "west"):
        message = workload(network, "10.244.0.77", network=network)
        server.put(ADDRESS_TYPE, uid(network), message, version="1")
    follower = follow()
    await follower.synced()
    assert {follower.workloads[uid(n)].network for n in ("east", "west")} == {"east", "west"}
    assert len({follower.workloads[uid(n)].addresses for n in ("east", "west")}) == 1


async def test_a_nack_names_the_bad_and_keeps_the_good(server, follow):
    follower = follow()
    await follower.synced()
    bad = service("a", "10.96.0.99", ports={80: 70000})
    server.put(ADDRESS_TYPE, A, bad, version="2")
    server.put(ADDRESS_TYPE, uid("b-1"), b"\xff\xff", version="2")
    server.put(ADDRESS_TYPE, B, service("b", "10.96.0.55"), version="2")
    server.push()
    await follower.until(lambda: len(follower.rejected) == 2)
    assert "70000" in follower.rejected[f"address {A}"]
    assert str(follower.services[B].addresses[0].address) == "10.96.0.55"
    assert str(follower.services[A].addresses[0].address) == "10.96.0.1"
    assert uid("b-1") in follower.workloads
    await server.until(lambda: bool(server.streams[0].nacks))
    nack = server.streams[0].nacks[0]
    assert nack.response_nonce == server.streams[0].responses[-1].nonce
    assert nack.error_detail.code == 3
    assert A in nack.error_detail.message
    assert uid("b-1") in nack.error_detail.message
    assert B not in nack.error_detail.message
    assert follower.source.status.nacks == 1
    assert len(follower.source.status.refused) == 2


async def test_what_was_refused_is_accepted_when_mended_or_gone(server, follow):
    follower = follow()
    server.put(ADDRESS_TYPE, A, b"\xff", version="2")
    server.put(ADDRESS_TYPE, uid("a-1"), b"\xff", version="2")
    await follower.until(lambda: len(follower.rejected) == 2)
    assert A not in follower.services
    server.put(ADDRESS_TYPE, A, service("a", "10.96.0.1"), version="3")
    server.remove(ADDRESS_TYPE, uid("a-1"))
    server.push()
    await follower.until(lambda: A in follower.services and not follower.rejected)
    assert follower.source.status.refused == {}


async def test_a_resource_back_at_its_good_version_is_no_longer_refused(server, follow):
    follower = follow()
    await follower.synced()
    good = server.world[ADDRESS_TYPE][A]
    server.put(ADDRESS_TYPE, A, b"\xff", version="2")
    server.push()
    await follower.until(lambda: bool(follower.rejected))
    server.world[ADDRESS_TYPE][A] = good
    server.push()
    await follower.until(lambda: not follower.rejected)
    assert A in follower.services


async def test_a_resent_response_changes_nothing(server, follow):
    follower = follow()
    await follower.synced()
    stream = server.open[0]
    for response in list(stream.responses):
        server.send(response.SerializeToString())
    await server.until(lambda: len(stream.acks) == 4)
    server.put(ADDRESS_TYPE, B, service("b", "10.96.0.55"), version="2")
    server.push()
    await follower.until(lambda: follower.source.status.acks == 5 and len(follower.updates) > 1)
    changed = [each.key for update in follower.updates[1:] for each in update.services]
    assert changed == [B]


async def test_a_removal_of_what_is_not_known_is_harmless(server, follow):
    follower = follow()
    await follower.synced()
    response = DeltaDiscoveryResponse(
        type_url=ADDRESS_TYPE, nonce="n", removed_resources=["nobody/knows", "this/one"]
    )
    server.send(response.SerializeToString())
    await follower.until(lambda: follower.source.status.acks == 3)
    assert len(follower.updates) == 1


async def test_in_one_response_a_resource_beats_its_own_removal(server, follow):
    follower = follow()
    await follower.synced()
    response = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, nonce="n", removed_resources=[A])
    resource = response.resources.add(name=A, version="9")
    resource.resource.type_url = ADDRESS_TYPE
    resource.resource.value = service("a", "10.96.0.44").SerializeToString()
    server.send(response.SerializeToString())
    await follower.until(lambda: len(follower.updates) == 2)
    assert str(follower.services[A].addresses[0].address) == "10.96.0.44"


async def test_a_type_that_was_not_asked_for_is_left_alone(server, follow):
    follower = follow()
    await follower.synced()
    other = DeltaDiscoveryResponse(type_url="type.googleapis.com/some.Other", nonce="n")
    server.send(other.SerializeToString())
    server.put(AUTHORIZATION_TYPE, "shop/q", policy("q"), version="")
    server.push()
    await follower.until(lambda: "shop/q" in follower.policies)
    assert len(server.streams) == 1
    assert not server.streams[0].nacks


async def test_policies_change_and_go(server, follow):
    follower = follow()
    await follower.synced()
    server.put(AUTHORIZATION_TYPE, "shop/p", policy("p", dry_run=True), version="")
    server.put(AUTHORIZATION_TYPE, "shop/q", policy("q", action="DENY"), version="")
    # Istiod gives policies no version, so every push must carry them anew.
    server.open[0].known[AUTHORIZATION_TYPE].clear()
    server.push()
    await follower.until(lambda: len(follower.policies) == 2)
    assert follower.policies["shop/p"].dry_run
    server.remove(AUTHORIZATION_TYPE, "shop/q")
    server.push()
    await follower.until(lambda: len(follower.policies) == 1)
    assert follower.updates[-1].removed_policies == ("shop/q",)


async def test_a_slow_consumer_gets_the_latest_and_holds_nobody_up(server, follow):
    follower = follow()
    await follower.synced()
    follower.may_take.clear()
    for version in range(2, 52):
        server.put(ADDRESS_TYPE, A, service("a", f"10.96.1.{version}"), version=str(version))
        server.push()
        await server.until(lambda want=version: len(server.streams[0].acks) == want + 1)
    follower.may_take.set()
    await follower.until(lambda: str(follower.services[A].addresses[0].address) == "10.96.1.51")
    # The one that was under way when the consumer stopped, and all the rest in one.
    assert len(follower.updates) <= 3


async def test_what_came_and_went_unseen_is_not_told(server, follow):
    follower = follow()
    await follower.synced()
    follower.may_take.clear()
    server.put(ADDRESS_TYPE, uid("seen"), workload("seen", "10.244.0.8"), version="1")
    server.push()
    await follower.until(lambda: follower.source.status.workloads == 4)
    await follower.until(lambda: len(follower.updates) == 2)
    server.put(ADDRESS_TYPE, uid("fleeting"), workload("fleeting", "10.244.0.9"), version="1")
    server.put(ADDRESS_TYPE, B, b"\xff", version="2")
    server.push()
    await follower.until(lambda: follower.source.status.workloads == 5)
    server.remove(ADDRESS_TYPE, uid("fleeting"))
    server.put(ADDRESS_TYPE, B, service("b", "10.96.0.3"), version="3")
    server.push()
    await follower.until(lambda: follower.source.status.workloads == 4)
    follower.may_take.set()
    await follower.until(lambda: len(follower.updates) == 3)
    update = follower.updates[2]
    assert update.removed_workloads == ()
    assert update.accepted == ()
    assert [each.key for each in update.services] == [B]


async def test_closing_the_iterator_closes_the_stream(server, follow):
    follower = follow()
    await follower.synced()
    await follower.close()
    await server.until(lambda: not server.open)
