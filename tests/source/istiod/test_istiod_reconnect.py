# SPDX-License-Identifier: Apache-2.0
"""Losing Istiod: what is held stays, what is missed is caught up with, and nothing is sent twice."""

from __future__ import annotations

import gc
import random

import pytest

from runtime.errors import KmeshError
from runtime.source.istiod.config import IstiodConfig
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.source import IstiodSource
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.source.istiod.mesh_messages import service, service_name, uid, workload

A, B = service_name("a"), service_name("b")


async def test_a_new_stream_resumes_from_the_versions_held(server, follow):
    follower = follow()
    await follower.synced()
    await server.drop()
    await server.until(lambda: len(server.streams) == 2 and len(server.streams[1].acks) == 2)
    stream = server.streams[1]
    versions = dict(stream.hello(ADDRESS_TYPE).initial_resource_versions)
    assert versions == dict.fromkeys(server.world[ADDRESS_TYPE], "1")
    assert dict(stream.hello(AUTHORIZATION_TYPE).initial_resource_versions) == {"shop/p": ""}
    assert stream.requests[0].HasField("node")
    assert [len(each.resources) for each in stream.responses] == [0, 0]
    assert len(follower.updates) == 1


async def test_what_changed_while_away_arrives_and_nothing_else(server, follow):
    follower = follow()
    await follower.synced()
    await server.stop()
    await follower.until(lambda: not follower.source.status.connected)
    assert follower.services.keys() == {A, B}
    server.remove(ADDRESS_TYPE, A)
    server.remove(ADDRESS_TYPE, uid("a-1"))
    server.put(ADDRESS_TYPE, uid("b-1"), workload("b-1", "10.244.0.33"), version="2")
    await server.start()
    await follower.until(lambda: A not in follower.services)
    update = follower.updates[-1]
    assert not update.complete
    assert update.removed_services == (A,)
    assert update.removed_workloads == (uid("a-1"),)
    assert [each.uid for each in update.workloads] == [uid("b-1")]
    assert len(follower.updates) == 2


async def test_versions_too_many_for_one_request_are_left_out_and_nothing_is_lost(server, follow):
    for number in range(200):
        name = f"many-{number}"
        server.put(ADDRESS_TYPE, uid(name), workload(name, "10.244.0.9"), version="1")
    follower = follow(largest_request=4096)
    await follower.synced()
    await server.stop()
    server.remove(ADDRESS_TYPE, A)
    server.remove(ADDRESS_TYPE, uid("many-7"))
    server.put(ADDRESS_TYPE, uid("b-1"), workload("b-1", "10.244.0.33"), version="2")
    await server.start()
    await follower.until(lambda: A not in follower.services)
    hello = server.streams[-1].hello(ADDRESS_TYPE)
    assert not hello.initial_resource_versions
    assert hello.ByteSize() < 4096
    assert server.streams[-1].hello(AUTHORIZATION_TYPE).initial_resource_versions
    assert len(follower.updates) == 2
    update = follower.updates[-1]
    assert update.removed_services == (A,)
    assert update.removed_workloads == (uid("many-7"),)
    assert [each.uid for each in update.workloads] == [uid("b-1")]
    assert not update.services
    server.put(ADDRESS_TYPE, uid("new"), workload("new", "10.244.9.9"), version="1")
    server.push()
    await follower.until(lambda: uid("new") in follower.workloads)
    assert len(follower.workloads) == 203


async def test_a_refused_resource_is_offered_again(server, follow):
    follower = follow()
    await follower.synced()
    server.put(ADDRESS_TYPE, A, b"\xff", version="2")
    server.push()
    await follower.until(lambda: bool(follower.rejected))
    await server.drop()
    await server.until(lambda: len(server.streams) == 2 and bool(server.streams[1].nacks))
    versions = server.streams[1].hello(ADDRESS_TYPE).initial_resource_versions
    assert versions[A] == "1"
    server.put(ADDRESS_TYPE, A, service("a", "10.96.0.3"), version="3")
    server.push()
    await follower.until(lambda: not follower.rejected)
    assert str(follower.services[A].addresses[0].address) == "10.96.0.3"


async def test_waits_grow_until_istiod_is_back_and_then_start_anew(server, follow, waits):
    follower = follow(backoff_first=1.0, backoff_most=8.0)
    await follower.synced()
    await server.stop()
    await follower.until(lambda: follower.source.status.failures >= 12)
    after_stream, *failing = waits.seconds
    assert 0 <= after_stream <= 1.0
    # Full jitter: each is anything below a bound that doubles up to the most.
    bounds = [min(8.0, 2.0**attempt) for attempt in range(len(failing))]
    assert all(0 <= wait <= bound for wait, bound in zip(failing, bounds, strict=True))
    assert max(failing) > 1.0
    assert len(set(failing)) == len(failing)
    assert "UNAVAILABLE" in (follower.source.status.last_error or "")
    await server.start()
    await follower.until(lambda: follower.source.status.connected)
    assert follower.source.status.last_error is None
    before = len(waits.seconds)
    await server.stop()
    await follower.until(lambda: len(waits.seconds) > before)
    assert waits.seconds[before] <= 1.0
    assert follower.services.keys() == {A, B}


async def test_a_stream_that_ended_leaves_no_task_behind(server, follow, caplog):
    follower = follow()
    await follower.synced()
    for count in range(2, 8):
        await server.drop()
        await server.until(lambda n=count: len(server.streams) == n and len(server.open) == 1)
        await follower.until(lambda: follower.source.status.connected)
    gc.collect()  # a task that nobody holds any more complains when it is collected
    assert "pending" not in caplog.text


async def test_garbage_ends_the_stream_and_the_last_good_state_stays(server, follow):
    follower = follow()
    await follower.synced()
    server.send(b"\xff\xfe not a response")
    await server.until(lambda: len(server.streams) == 2 and len(server.streams[1].acks) == 2)
    assert follower.source.status.failures == 1
    assert follower.services.keys() == {A, B}
    assert len(follower.updates) == 1


async def test_random_bytes_never_stop_the_source(server, follow):
    random_bytes = random.Random(20_250_101).randbytes
    follower = follow()
    await follower.synced()
    for size in range(1, 60):
        await server.until(lambda: bool(server.open))
        response = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, nonce="x")
        resource = response.resources.add(name=uid("a-1"), version=f"r{size}")
        resource.resource.type_url = ADDRESS_TYPE
        resource.resource.value = random_bytes(size)
        server.send(response.SerializeToString())
        server.send(random_bytes(size))
    await server.until(lambda: bool(server.open))
    server.put(ADDRESS_TYPE, uid("new"), workload("new", "10.244.9.9"), version="1")
    server.push()
    await follower.until(lambda: uid("new") in follower.workloads)
    assert follower.services.keys() == {A, B}
    assert uid("a-1") in follower.workloads


async def test_responses_in_another_order_come_to_the_same(server, follow):
    follower = follow()
    await follower.synced()
    stream = server.open[0]
    response = DeltaDiscoveryResponse()
    response.CopyFrom(next(r for r in stream.responses if r.type_url == ADDRESS_TYPE))
    resources = list(response.resources)
    for seed in range(5):
        random.Random(seed).shuffle(resources)
        for part in (resources[:2], resources[2:]):
            again = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, nonce=f"s{seed}")
            for resource in part:
                made = again.resources.add()
                made.CopyFrom(resource)
                made.version = f"s{seed}"
            server.send(again.SerializeToString())
    await server.until(lambda: len(stream.acks) == 12)
    await follower.until(lambda: follower.source.status.responses == 12)
    assert follower.services.keys() == {A, B}
    assert len(follower.workloads) == 3


async def test_a_bug_of_ours_costs_a_stream_and_loses_nothing(server, follow):
    follower = follow()
    await follower.synced()
    hostnames = follower.source._hostnames
    take = hostnames.take

    def fails_once(workloads):
        hostnames.take = take
        raise RuntimeError("a bug")

    hostnames.take = fails_once
    server.put(ADDRESS_TYPE, uid("new"), workload("new", "10.244.9.9"), version="1")
    server.remove(ADDRESS_TYPE, A)
    server.push()
    await server.until(lambda: len(server.streams) == 2 and len(server.streams[1].acks) == 2)
    await follower.until(lambda: uid("new") in follower.workloads and A not in follower.services)
    assert (
        "RuntimeError" in str(follower.source.status.last_error) or follower.source.status.connected
    )
    versions = dict(server.streams[1].hello(ADDRESS_TYPE).initial_resource_versions)
    assert versions.keys() == server.world[ADDRESS_TYPE].keys()
    assert set(versions.values()) == {""}


async def test_a_client_that_ends_is_an_error_for_the_consumer(server, config, monkeypatch):
    source = IstiodSource(config)

    async def breaks() -> None:
        raise TypeError("a fault")

    monkeypatch.setattr(source._client, "run", breaks)
    with pytest.raises(KmeshError, match="ended: TypeError"):
        await anext(source.updates())


def test_the_channel_pings_and_has_no_bound_on_a_message():
    from tests.source.istiod.conftest import NODE

    options = dict(IstiodConfig(node=NODE, keepalive=30, keepalive_timeout=10).channel_options())
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert options["grpc.keepalive_timeout_ms"] == 10_000
    assert options["grpc.max_receive_message_length"] == -1
