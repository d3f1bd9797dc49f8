# SPDX-License-Identifier: Apache-2.0
"""What Istiod said to a sidecar, done by the node's Envoy: the routes that the kernel does not do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, read
from runtime.waypoint.ads import AdsServer
from tests.waypoint.bookstore import (
    LDS,
    RATINGS,
    RDS,
    REVIEWS,
    V1,
    V2,
    V3,
    Reply,
    changed,
    connect,
    exchange,
    recorded,
    request,
    taken,
    until,
)

pytestmark = [pytest.mark.root, pytest.mark.slow]


async def ask(
    envoy: Path,
    target: str,
    *,
    to: tuple[str, int] = (REVIEWS, 9080),
    host: str = "reviews",
    **headers: str,
) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await asyncio.to_thread(request, envoy, *to, target, host, named)


async def test_the_recorded_routes_do_what_they_say(envoy: Path, ads: AdsServer) -> None:
    ads.put(recorded())
    await taken(ads, envoy)
    assert ads.ledger.refusals() == {}

    rewritten = await ask(envoy, "/legacy/a?b=c", x_secret="hush")
    assert rewritten.told["at"] == V3
    assert rewritten.told["path"] == "/modern/a?b=c"
    assert rewritten.told["headers"]["x-from"] == "legacy"
    assert "x-secret" not in rewritten.told["headers"]

    retried = await ask(envoy, "/reviews/1/flaky?mode=retry", x_id="r", x_fail="1")
    assert (retried.status, retried.told["at"]) == (200, V1)
    assert retried.told["tries"] > 1
    given_up = await ask(envoy, "/reviews/1/flaky?mode=retry", x_id="g", x_fail="9")
    assert given_up.status in (503, 504)  # four attempts, or the two seconds that they have
    not_retried = await ask(envoy, "/plain", x_id="n", x_fail="1")
    assert not_retried.status == 503
    too_slow = await ask(envoy, "/reviews/1/flaky?mode=retry", x_hang="9")
    assert too_slow.status == 504

    tester = await ask(envoy, "/", x_user="jason", x_secret="kept")
    assert (tester.told["at"], tester.told["headers"]["x-secret"]) == (V2, "kept")
    assert (await ask(envoy, "/", x_chaos="abort")).status == 503
    assert (await ask(envoy, "/api/v1/reviews/7")).headers["location"].endswith("/reviews/")

    mirrored = await ask(envoy, "/mirror/x", to=(RATINGS, 9080), host="ratings", x_id="m")
    assert mirrored.told["at"].startswith(("10.244.0.7:", "10.244.0.8:"))

    def came_to_v1() -> bool:
        seen = request(envoy, REVIEWS, 9080, "/~seen", "reviews")
        return seen.status == 200 and "/mirror/x m" in json.loads(seen.body)

    await until(came_to_v1)  # of the shadow, sooner or later


async def test_an_address_without_a_listener_is_told(envoy: Path, ads: AdsServer) -> None:
    ads.put(recorded())
    await taken(ads, envoy)
    reply = await ask(envoy, "/", to=("10.96.0.77", 1234), host="x")
    assert reply.status == 503
    assert "no listener" in reply.headers["x-kmesh-reason"]


@pytest.mark.parametrize("label", [("tlsMode", "istio"), ("tunnel", "http")])
async def test_only_endpoints_that_insist_on_certificates_fail(
    envoy: Path, ads: AdsServer, label: tuple[str, str]
) -> None:
    def insist(wire: Any) -> None:
        for each in wire.endpoints[0].lb_endpoints:
            labels = each.metadata.filter_metadata["envoy.transport_socket_match"]
            labels.fields[label[0]].string_value = label[1]
            original = each.metadata.filter_metadata["envoy.filters.listener.original_dst"]
            original.fields["local"].string_value = V3
            if label[0] == "tunnel":
                each.endpoint.ClearField("address")
                internal = each.endpoint.address.envoy_internal_address
                internal.server_listener_name, internal.endpoint_id = "connect_originate", V3

    v3 = "outbound|9080|v3|reviews.bookstore.svc.cluster.local"
    ads.put(changed(recorded(), ENDPOINTS, v3, insist))
    await taken(ads, envoy)
    refused = await ask(envoy, "/legacy/a")
    assert refused.status == 503
    if label[0] == "tlsMode":
        assert b"Secret is not supplied by SDS" in refused.body
    assert (await ask(envoy, "/", x_user="jason")).told["at"] == V2


async def test_a_change_of_route_reaches_open_connections_and_no_request_fails(
    envoy: Path, ads: AdsServer
) -> None:
    """The route goes over to a cluster that is new, and back; the one that it left is taken away."""
    before = recorded()
    new = "outbound|9080|new|reviews.bookstore.svc.cluster.local"

    def to_new(wire: Any) -> None:
        host = next(h for h in wire.virtual_hosts if h.name.startswith("reviews"))
        route = next(r for r in host.routes if r.name == "testers")
        del host.routes[:]
        route.ClearField("match")
        route.match.prefix = "/"
        route.route.cluster = new
        host.routes.append(route)

    after = changed(before, ROUTES, "9080", to_new)
    for kind, message, old in (
        (
            "type.googleapis.com/" + CLUSTER,
            CLUSTER,
            "outbound|9080|v3|reviews.bookstore.svc.cluster.local",
        ),
        (
            "type.googleapis.com/" + ENDPOINTS,
            ENDPOINTS,
            "outbound|9080|v3|reviews.bookstore.svc.cluster.local",
        ),
    ):
        wire = read(message, after[kind].pop(old))
        if message == CLUSTER:
            wire.name = wire.eds_cluster_config.service_name = new
        else:
            wire.cluster_name = new
        after[kind][new] = wire.SerializeToString()
    ads.put(before)
    await taken(ads, envoy)
    statuses: list[int] = []
    going = True

    def keep_asking() -> None:
        with connect(envoy, REVIEWS, 9080) as connection:
            while going:
                statuses.append(exchange(connection, "/legacy/a", "reviews").status)

    asking = asyncio.ensure_future(asyncio.to_thread(keep_asking))
    try:
        for picture, path in ((after, "/legacy/a"), (before, "/modern/a")) * 3:
            ads.put(picture)
            await taken(ads, envoy)
            asked = len(statuses)
            await until(lambda: len(statuses) > asked + 20)  # noqa: B023 - it is awaited here
            reply = await ask(envoy, "/legacy/a")
            assert (reply.told["at"], reply.told["path"]) == (V3, path)
    finally:
        going = False
        await asking
    assert set(statuses) == {200}


async def test_what_envoy_refuses_is_named_and_its_last_good_version_stays(
    envoy: Path, ads: AdsServer
) -> None:
    good = recorded()
    ads.put(good)
    await taken(ads, envoy)

    def twice(wire: Any) -> None:  # two virtual hosts for everything
        wire.virtual_hosts.add(name="second", domains=["*"])

    def elsewhere(wire: Any) -> None:
        for host in wire.virtual_hosts:
            for route in host.routes:
                if route.name == "rewritten":
                    route.route.prefix_rewrite = "/newest/"

    bad = changed(changed(good, ROUTES, "80", twice), ROUTES, "9080", elsewhere)

    def unknown(wire: Any) -> None:
        manager = wire.filter_chains[0].filters[0].typed_config
        manager.type_url = "type.googleapis.com/nobody.knows.This"

    bad = changed(bad, LISTENER, "0.0.0.0_9090", unknown)
    ads.put(bad)
    await until(lambda: len(ads.ledger.refusals()) == 2)
    await taken(ads, envoy)
    told = ads.ledger.refusals()
    assert set(told) == {"route table 80", "listener 0.0.0.0_9090"}
    assert "nobody.knows.This" in told["listener 0.0.0.0_9090"]
    assert ads.ledger.sheets[RDS].nacks >= 1
    assert ads.ledger.sheets[LDS].nacks == 1
    # What was good of the same push is in force, and what was refused serves as before.
    assert (await ask(envoy, "/legacy/a")).told["path"] == "/newest/a"
    assert (
        await ask(envoy, "/", to=(RATINGS, 9090), host="ratings")
    ).status == 503  # no endpoint here
    assert (
        "no listener"
        not in (await ask(envoy, "/", to=(RATINGS, 9090), host="ratings")).body.decode()
    )

    ads.put(good)
    await until(lambda: not ads.ledger.refusals())
    await taken(ads, envoy)
    assert (await ask(envoy, "/legacy/a")).told["path"] == "/modern/a"
