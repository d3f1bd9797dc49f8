# SPDX-License-Identifier: Apache-2.0
"""Both streams of the source `istiod` in one sequence of updates: neither waits for the other for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from runtime.source.istiod.config import IstiodConfig
from runtime.source.istiod.mesh import IstiodMesh
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.source.istiod.ads.conftest import Follower
from tests.source.istiod.ads.test_ads_stream import table
from tests.source.istiod.ads_server import RDS, AdsServer
from tests.source.istiod.conftest import Waits
from tests.source.istiod.mesh_messages import policy, service, service_name, uid, workload
from tests.source.istiod.xds_server import XdsServer

Start = Callable[..., Follower]


@pytest.fixture
async def mesh(server: AdsServer, config: IstiodConfig, waits: Waits) -> AsyncIterator[Start]:
    """Make a follower of a new source of both."""
    server.put(ADDRESS_TYPE, service_name("a"), service("a", "10.96.0.1"), version="1")
    server.put(ADDRESS_TYPE, uid("a-1"), workload("a-1", "10.244.0.1", serves=("a",)), version="1")
    server.put(AUTHORIZATION_TYPE, "shop/p", policy("p"), version="")
    made: list[Follower] = []

    def start(*, http: bool = True) -> Follower:
        made.append(Follower(IstiodMesh(config, http=http, sleep=waits)))
        return made[-1]

    yield start
    for follower in made:
        await follower.close()


def services(follower: Follower) -> list[str]:
    return [each.key for update in follower.updates for each in update.services]


def details(follower: Follower) -> dict[str, Any]:
    status: Any = follower.source
    found: dict[str, Any] = status.status.to_json()
    return found


async def test_services_come_first_and_whole_and_http_after_them(server, mesh):
    follower = mesh()
    await follower.synced()
    first, second = follower.updates[:2]
    assert first.complete
    assert first.http is None
    assert services(follower) == [service_name("a")]
    assert not second.complete
    assert second.http is not None
    assert second.http.complete
    assert details(follower)["connected"] is True
    assert details(follower)["http"]["synced"] is True
    assert details(follower)["http"]["route_tables"] == 3
    origins = follower.source.origins()
    assert origins["route table 80"].startswith("istiod 127.0.0.1:")
    assert service_name("a") in origins


async def test_without_being_wanted_ads_is_not_opened(server, mesh):
    follower = mesh(http=False)
    await follower.until(lambda: follower.updates)
    await asyncio.sleep(0.05)
    assert server.ads == []
    assert details(follower)["http"] is None
    follower.source.want_http()
    await follower.synced()
    assert len(server.ads) == 1


async def test_no_ads_holds_up_nothing(server, mesh):
    server.broken = True
    follower = mesh()
    await follower.until(lambda: follower.updates)
    await follower.until(lambda: details(follower)["http"]["failures"] > 2)
    server.put(ADDRESS_TYPE, service_name("b"), service("b", "10.96.0.2"), version="1")
    server.push()
    await follower.until(lambda: service_name("b") in services(follower))
    assert not follower.picture.known
    assert details(follower)["connected"] is True
    server.broken = False
    await follower.synced()


async def test_a_server_that_has_no_ads_has_no_http_until_it_has(server, mesh, monkeypatch):
    await server.stop()
    with monkeypatch.context() as without:
        without.setattr(AdsServer, "_methods", XdsServer._methods)
        await server.start()
    follower = mesh()
    await follower.synced()
    assert not follower.picture.tables
    assert details(follower)["http"]["offered"] is False
    assert details(follower)["http"]["synced"] is False
    assert details(follower)["http"]["last_error"].startswith("UNIMPLEMENTED")
    await server.stop()
    await server.start()
    await follower.until(lambda: len(follower.picture.tables) == 3)
    assert details(follower)["http"]["offered"] is True


async def test_no_workload_api_holds_up_http_only_until_its_first_picture(server, mesh):
    follower = mesh()
    await follower.synced()
    server.authorize = lambda _: False
    await server.drop()
    server.put_ads(RDS, "80", table("80", "other"))
    server.push_ads(RDS)
    await follower.until(lambda: len(follower.picture.tables["80"].virtual_hosts) == 1)
    assert details(follower)["connected"] is False


async def test_a_fault_in_http_does_not_end_the_rest(server, mesh, monkeypatch):
    from runtime.source.istiod.ads.source import AdsSource

    real = AdsSource.updates
    faults: list[int] = []

    async def faulty(self):
        if len(faults) < 2:
            faults.append(1)
            raise RuntimeError("a fault of ours")
        async for update in real(self):
            yield update

    monkeypatch.setattr(AdsSource, "updates", faulty)
    follower = mesh()
    await follower.until(lambda: follower.updates)
    server.put(ADDRESS_TYPE, service_name("b"), service("b", "10.96.0.2"), version="1")
    server.push()
    await follower.until(lambda: service_name("b") in services(follower))
    await follower.synced()
    assert len(faults) == 2


async def test_it_goes_on_for_the_same_consumer_after_being_closed(server, mesh):
    follower = mesh()
    await follower.synced()
    await follower.close()
    await server.until(lambda: not server.ads_open and not server.open)
    server.put_ads(RDS, "80", table("80", "other"))
    again = Follower(follower.source)
    await again.until(lambda: again.updates)
    assert again.updates[0].http is not None
    assert set(again.updates[0].http.tables) == {"80"}
    assert not again.updates[0].http.complete
    await again.close()
