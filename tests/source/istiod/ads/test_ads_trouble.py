# SPDX-License-Identifier: Apache-2.0
"""What cannot be accepted is refused with the reason, and what was good stays; streams come and go."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.source.envoy.messages import CLUSTER, ROUTES
from runtime.source.istiod.ads.kinds import CLUSTERS, ENDPOINT_SETS
from runtime.source.istiod.ads.subscription import StateSubscription
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryResponse
from tests.source.envoy.wire import message, recorded
from tests.source.istiod.ads.test_ads_stream import cluster, table
from tests.source.istiod.ads_server import CDS, EDS, LDS, RDS

BAD = message(ROUTES, 'name: "80" virtual_hosts { name: "h" }')


async def test_a_bad_table_is_refused_by_name_and_the_good_ones_apply(server, follow):
    follower = follow()
    await follower.synced()
    before = follower.picture.tables["80"]
    server.put_ads(RDS, "80", BAD)
    server.put_ads(RDS, "9080", table("9080", "other"))
    server.push_ads(RDS)
    await follower.until(lambda: follower.rejected)
    assert follower.rejected == {
        "route table 80": "virtual host 'h' has no domain, or an empty one"
    }
    assert follower.picture.tables["80"] == before
    assert len(follower.picture.tables["9080"].virtual_hosts) == 1
    stream = server.ads[0]
    await server.until(lambda: stream.nacks)
    (nack,) = stream.nacks
    good = [r for r in stream.acks if r.type_url == RDS][-1]
    assert nack.version_info == good.version_info
    assert nack.response_nonce == stream.responses[-1].nonce
    assert "80: virtual host 'h' has no domain" in nack.error_detail.message
    assert list(nack.resource_names) == ["80", "9080", "9090"]
    assert follower.source.status.refused == follower.rejected


async def test_it_is_good_again(server, follow):
    server.put_ads(RDS, "80", BAD)
    follower = follow()
    await follower.synced()
    assert "80" not in follower.picture.tables
    assert set(follower.rejected) == {"route table 80"}
    server.put_ads(RDS, "80", table("80", "other"))
    server.push_ads(RDS)
    await follower.until(lambda: "80" in follower.picture.tables)
    assert follower.rejected == {}


async def test_what_cannot_even_be_told_by_name_takes_nothing_away(server, follow):
    follower = follow()
    await follower.synced()
    names = set(follower.picture.clusters)
    del server.sotw[CDS]["BlackHoleCluster"]
    server.put_ads(CDS, "?", b"\xff\xff")
    server.push_ads(CDS)
    await follower.until(lambda: follower.rejected)
    assert set(follower.picture.clusters) == names
    del server.sotw[CDS]["?"]
    server.push_ads(CDS)
    await follower.until(lambda: not follower.rejected)
    assert names - set(follower.picture.clusters) == {"BlackHoleCluster"}


async def test_a_refused_cluster_keeps_its_last_good_state_and_endpoints(server, follow):
    follower = follow()
    await follower.synced()
    name = "outbound|80||partner.example.com"
    bad = cluster(
        name,
        "type: STATIC load_assignment { endpoints { lb_endpoints { endpoint { address {"
        " socket_address { address: 'x' } } } } } }",
    )
    server.put_ads(CDS, name, bad)
    server.push_ads(CDS)
    await follower.until(lambda: follower.rejected)
    assert "not an IP address" in follower.rejected[f"cluster {name}"]
    assert follower.picture.clusters[name] == recorded(CLUSTER)[name]
    assert name in follower.picture.endpoints


async def test_a_new_stream_asks_for_everything_at_once_and_tells_the_versions(server, follow):
    follower = follow()
    await follower.synced()
    await server.until(lambda: len(server.ads[0].acks) == 4)
    await server.drop_ads()
    await server.until(lambda: len(server.ads) == 2 and len(server.ads[1].acks) == 4)
    stream = server.ads[1]
    assert [r.type_url for r in stream.requests[:4]] == [CDS, EDS, LDS, RDS]
    assert stream.requests[0].HasField("node")
    assert all(r.version_info and not r.response_nonce for r in stream.requests[:4])
    assert list(stream.of(RDS)[0].resource_names) == ["80", "9080", "9090"]
    assert not stream.stale
    assert len(follower.updates) == 1


async def test_what_changed_while_away_arrives_and_nothing_else(server, follow):
    follower = follow()
    await follower.synced()
    await server.stop()
    await follower.until(lambda: not follower.source.status.connected)
    assert len(follower.picture.clusters) == 16
    del server.sotw[CDS]["BlackHoleCluster"]
    server.put_ads(RDS, "80", table("80", "other"))
    await server.start()
    await follower.until(lambda: "BlackHoleCluster" not in follower.picture.clusters)
    await follower.until(lambda: len(follower.picture.tables["80"].virtual_hosts) == 1)
    changes = [update.http for update in follower.updates[1:] if update.http]
    assert {name for change in changes for name in change.clusters} == {"BlackHoleCluster"}
    assert {name for change in changes for name in change.tables} == {"80"}
    assert not any(change.complete or change.endpoints for change in changes)


async def test_attempts_are_spaced_at_random_and_further_and_further(server, follow, waits):
    server.broken = True
    random.seed(1)
    follower = follow(backoff_first=1.0, backoff_most=8.0)
    await follower.until(lambda: follower.source.status.failures >= 8)
    assert "no ADS today" in (follower.source.status.last_error or "")
    assert all(0 <= wait <= 8 for wait in waits.seconds)
    assert len(set(waits.seconds)) > 4
    server.broken = False
    await follower.synced()


GARBAGE = [
    b"\xff\xff\xff",
    b"",
    DiscoveryResponse(type_url="acme", nonce="n").SerializeToString(),
    DiscoveryResponse(type_url=EDS, nonce="early").SerializeToString(),
]


@pytest.mark.parametrize("payload", GARBAGE)
async def test_garbage_costs_at_most_the_stream(server, follow, payload):
    follower = follow()
    await follower.synced()
    server.send_ads(payload)
    server.put_ads(RDS, "80", table("80", "other"))
    server.push_ads(RDS)
    await follower.until(lambda: len(follower.picture.tables["80"].virtual_hosts) == 1)
    assert len(follower.picture.clusters) == 16


async def test_responses_in_another_order_end_in_the_same_picture(server, follow):
    kinds = [RDS, LDS, EDS, CDS]
    follower = follow()
    await follower.synced()
    server.put_ads(RDS, "80", table("80", "new"))
    server.put_ads(CDS, "new", cluster("new"))
    server.put_ads(EDS, "new", b"\x0a\x03new")
    for kind in kinds:
        server.push_ads(kind)
    await follower.until(lambda: "new" in follower.picture.endpoints)
    await follower.until(lambda: len(follower.picture.tables["80"].virtual_hosts) == 1)
    assert not server.ads[0].stale or all(r.type_url == EDS for r in server.ads[0].stale)


def run(coroutine):
    """Run what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


STEP = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("gGbn")), max_size=7)


@given(st.lists(STEP, max_size=6))
def test_any_order_of_good_bad_and_gone_ends_where_the_last_good_says(steps):
    """Against a plain model: what is whole and named replaces, what is missing goes, bad ones stay."""
    subscription = StateSubscription(CLUSTERS)
    subscription.allow()
    held: dict[str, str] = {}
    expected: dict[str, str] = {}
    for number, step in enumerate(steps):
        response = DiscoveryResponse(type_url=CDS, version_info=str(number), nonce=str(number))
        good: dict[str, str] = {}
        bad: set[str] = set()
        nameless = False
        for index, how in dict(step).items():
            name = f"c{index}"
            if how == "n":
                response.resources.add(type_url=CDS, value=b"\xff")
                nameless = True
                continue
            hostname = f"h{number}" if how == "G" else "h"
            made = cluster(name, f"type: EDS eds_cluster_config {{ service_name: '{hostname}' }}")
            if how == "b":
                made.circuit_breakers.SetInParent()
                made.load_assignment.endpoints.add().lb_endpoints.add().load_balancing_weight.value = 0
                made.type = 0
                bad.add(name)
            else:
                good[name] = hostname
            response.resources.add(type_url=CDS, value=made.SerializeToString())
        outcome = run(subscription.apply(response))
        for (_, name), state in outcome.changes.resources.items():
            if state is None:
                del held[name]
            else:
                held[name] = state.endpoints_name
        if not nameless:
            expected = {n: v for n, v in expected.items() if n in good or n in bad}
        expected |= good
        assert held == expected
        assert set(outcome.refused) >= bad
        answer = subscription.answer(response, outcome)
        assert answer.HasField("error_detail") == bool(bad or nameless)
        assert subscription.payloads.keys() == expected.keys()


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_answered(payload, by_name):
    subscription = StateSubscription(ENDPOINT_SETS if by_name else CLUSTERS)
    subscription.allow()
    kind = subscription.type_url
    response = DiscoveryResponse(type_url=kind, version_info="1", nonce="n")
    response.resources.add(type_url=kind, value=payload)
    outcome = run(subscription.apply(response))
    answer = subscription.answer(response, outcome)
    assert answer.response_nonce == "n"
    assert bool(answer.version_info) != answer.HasField("error_detail")


def test_lds_is_asked_for_once_only():
    subscription = StateSubscription(CLUSTERS)
    assert subscription.hello(most=0) is None
    assert subscription.allow() is not None
    assert subscription.allow() is None
    assert LDS != CDS
