# SPDX-License-Identifier: Apache-2.0
"""The conversation on one stream: in which order what is asked, and with which nonces."""

from __future__ import annotations

import asyncio

from runtime.model.http import Forward
from runtime.source.envoy.messages import CLUSTER, LISTENER, ROUTES
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryResponse
from tests.source.envoy.wire import message, recorded
from tests.source.istiod.ads_server import CDS, EDS, LDS, RDS

REVIEWS = "outbound|9080||reviews.bookstore.svc.cluster.local"


def cluster(name: str, more: str = "type: EDS"):
    return message(CLUSTER, f'name: "{name}" {more}')


def table(name: str, to: str):
    return message(
        ROUTES,
        f'name: "{name}" virtual_hosts {{ name: "h" domains: "*" routes {{ match {{ prefix: "/" }}'
        f' route {{ cluster: "{to}" timeout {{}} }} }} }}',
    )


async def test_the_first_update_is_the_whole_picture(server, follow):
    follower = follow()
    await follower.synced()
    (first,) = follower.updates
    assert first.http is not None
    assert first.http.complete
    assert not first.complete  # of services and workloads it says nothing
    picture = follower.picture
    assert picture.clusters == recorded(CLUSTER)
    assert picture.listeners == recorded(LISTENER)
    assert picture.tables == recorded(ROUTES)
    assert len(picture.endpoints) == 11
    status = follower.source.status
    assert status.synced
    assert (status.clusters, status.endpoints) == (16, 11)
    assert (status.listeners, status.route_tables) == (9, 3)
    assert follower.rejected == {}


async def test_types_are_asked_for_in_envoys_order_each_when_it_can_be(server, follow):
    follower = follow()
    await follower.synced()
    stream = server.ads[0]
    await server.until(lambda: len(stream.acks) == 4)
    asked = [request.type_url for request in stream.requests if not request.response_nonce]
    assert asked == [CDS, EDS, LDS, RDS]
    assert stream.requests[0].node.id.startswith("sidecar~192.0.2.7~kmesh-x.kmesh-system~")
    assert not any(each.HasField("node") for each in stream.requests[1:])
    assert stream.metadata["clusterid"] == "c1"
    assert not stream.of(CDS)[0].resource_names
    assert not stream.of(LDS)[0].resource_names
    endpoints = [n for n, each in recorded(CLUSTER).items() if each.endpoints_name]
    assert list(stream.of(EDS)[0].resource_names) == sorted(endpoints)
    assert list(stream.of(RDS)[0].resource_names) == ["80", "9080", "9090"]


async def test_an_ack_repeats_version_nonce_and_all_names(server, follow):
    follower = follow()
    await follower.synced()
    stream = server.ads[0]
    await server.until(lambda: len(stream.acks) == 4)
    for response in stream.responses:
        (ack,) = [r for r in stream.acks if r.response_nonce == response.nonce]
        assert ack.version_info == response.version_info
        assert ack.type_url == response.type_url
        assert ack.resource_names == stream.of(ack.type_url)[0].resource_names
    assert not stream.stale
    assert follower.source.status.acks == 4


async def test_a_new_cluster_has_its_endpoints_asked_for_with_an_empty_nonce(server, follow):
    follower = follow()
    await follower.synced()
    server.put_ads(CDS, "new", cluster("new"))
    server.put_ads(EDS, "new", message("envoy.config.endpoint.v3.ClusterLoadAssignment",
                                       'cluster_name: "new"'))  # fmt: skip
    server.push_ads(CDS)
    await follower.until(lambda: "new" in follower.picture.endpoints)
    stream = server.ads[0]
    asked = stream.of(EDS)[-2]
    assert asked.response_nonce == ""
    assert "new" in asked.resource_names
    assert REVIEWS in asked.resource_names
    await server.until(lambda: len(stream.acks) == 6)
    assert not stream.stale


async def test_a_cluster_that_goes_takes_its_endpoints_along(server, follow):
    follower = follow()
    await follower.synced()
    del server.sotw[CDS][REVIEWS]
    server.push_ads(CDS)
    await follower.until(lambda: REVIEWS not in follower.picture.clusters)
    await follower.until(lambda: REVIEWS not in follower.picture.endpoints)
    stream = server.ads[0]
    await server.until(lambda: REVIEWS not in stream.of(EDS)[-1].resource_names)
    assert len(follower.picture.clusters) == 15


async def test_what_is_no_longer_wanted_at_all_is_unsubscribed_from(server, follow):
    follower = follow()
    await follower.synced()
    server.sotw[LDS].clear()
    server.push_ads(LDS)
    await follower.until(lambda: not follower.picture.tables)
    stream = server.ads[0]
    await server.until(lambda: RDS not in stream.watches)
    server.put_ads(LDS, *_listener("80"))
    server.push_ads(LDS)
    await follower.until(lambda: set(follower.picture.tables) == {"80"})


def _listener(table_name: str):
    for name, each in recorded(LISTENER).items():
        if each.tables == (table_name,):
            from tests.source.envoy.wire import payloads

            raw = [p for p in payloads(LISTENER) if f"0.0.0.0_{table_name}".encode() in p]
            return name, raw[0]
    raise AssertionError(table_name)


async def test_a_change_of_one_table_is_one_change(server, follow):
    follower = follow()
    await follower.synced()
    server.put_ads(RDS, "80", table("80", "other"))
    server.push_ads(RDS)
    await follower.until(lambda: len(follower.updates) == 2)
    change = follower.updates[1].http
    assert change is not None
    assert not change.complete
    assert set(change.tables) == {"80"}
    assert not change.clusters
    assert not change.listeners
    action = follower.picture.tables["80"].virtual_hosts[0].routes[0].action
    assert isinstance(action, Forward)
    assert action.clusters[0].name == "other"


async def test_a_push_without_a_change_tells_nothing(server, follow):
    follower = follow()
    await follower.synced()
    server.push_ads()
    stream = server.ads[0]
    await server.until(lambda: len(stream.acks) == 8)
    await asyncio.sleep(0.05)
    assert len(follower.updates) == 1


async def test_part_of_the_endpoints_leaves_the_others_alone(server, follow):
    follower = follow()
    await follower.synced()
    only = DiscoveryResponse(version_info="p", nonce="p", type_url=EDS)
    only.resources.add(type_url=EDS, value=b"\x0a" + bytes([len(REVIEWS)]) + REVIEWS.encode())
    server.send_ads(only.SerializeToString())
    await follower.until(lambda: follower.picture.endpoints[REVIEWS].endpoints == ())
    assert len(follower.picture.endpoints) == 11


async def test_endpoints_that_nobody_asked_for_are_not_taken(server, follow):
    follower = follow()
    await follower.synced()
    other = DiscoveryResponse(version_info="p", nonce="p", type_url=EDS)
    other.resources.add(type_url=EDS, value=b"\x0a\x05other")
    server.send_ads(other.SerializeToString())
    await server.until(lambda: any(r.response_nonce == "p" for r in server.ads[0].requests))
    assert "other" not in follower.picture.endpoints


async def test_an_empty_mesh_is_a_whole_picture(server, follow):
    for kind in server.sotw:
        server.sotw[kind].clear()
    follower = follow()
    await follower.synced()
    assert follower.picture.clusters == {}
    assert EDS not in server.ads[0].watches
    assert RDS not in server.ads[0].watches


async def test_nothing_is_told_before_all_four_are_there(server, follow):
    server.silent.add(RDS)
    follower = follow()
    await follower.until(lambda: follower.source.status.listeners == 9)
    await asyncio.sleep(0.05)
    assert follower.updates == []
    server.silent.clear()
    server.push_ads(RDS)
    await follower.synced()


async def test_the_very_resources_can_be_handed_on(server, follow):
    follower = follow()
    await follower.synced()
    assert follower.source.resources() == server.sotw
