# SPDX-License-Identifier: Apache-2.0
"""Services and EndpointSlices from the API server, as from files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.source.kubernetes_api import KubernetesSource
from runtime.source.update import Update
from tests.cluster_api.fake import FakeApi

SERVICES, SLICES = "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"


def put_service(api: FakeApi, name: str, address: Any = "10.96.0.10", **spec: Any) -> None:
    value = {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": address, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }
    api.put(SERVICES, f"/api/v1/namespaces/shop/services/{name}", value)


def put_slice(api: FakeApi, service: str, *addresses: str, **fields: Any) -> None:
    value = {
        "metadata": {
            "name": f"{service}-1",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address]} for address in addresses],
        **fields,
    }
    api.put(SLICES, f"{SLICES}/{service}-1", value)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    made = FakeApi()
    put_service(made, "web")
    put_slice(made, "web", "10.0.0.1")
    yield made
    made.end_watches()


async def nth(updates: AsyncIterator[Update]) -> Update:
    return await asyncio.wait_for(anext(updates), 20)


def workloads(update: Update) -> set[str]:
    return {workload.name for workload in update.workloads}


async def test_first_picture_is_whole_and_then_changes_alone(api: FakeApi) -> None:
    updates = KubernetesSource(api, settle=0).updates()
    first = await nth(updates)
    assert first.complete
    assert [service.key for service in first.services] == ["shop/web.shop.svc.cluster.local"]
    assert workloads(first) == {"10.0.0.1"}
    put_slice(api, "web", "10.0.0.1", "10.0.0.2")
    second = await nth(updates)
    assert not second.complete
    assert (second.services, workloads(second)) == ((), {"10.0.0.2"})
    api.remove(SERVICES, "/api/v1/namespaces/shop/services/web")
    third = await nth(updates)
    assert third.removed_services == ("shop/web.shop.svc.cluster.local",)
    assert len(third.removed_workloads) == 2


async def test_bad_object_costs_only_itself_and_its_last_good_version_serves(api: FakeApi) -> None:
    source = KubernetesSource(api, settle=0)
    updates = source.updates()
    await nth(updates)
    put_service(api, "web", ports=[{"port": 0}])
    bad = await nth(updates)
    assert (bad.services, bad.removed_services) == ((), ())
    (rejection,) = bad.rejections
    assert rejection.resource == "Service shop/web"
    assert "spec.ports[0].port" in rejection.reason
    put_service(api, "web", "10.96.0.11")
    good = await nth(updates)
    assert good.accepted == ("Service shop/web",)
    assert str(good.services[0].addresses[0].address) == "10.96.0.11"


async def test_list_after_a_forgotten_version_removes_what_went_meanwhile(api: FakeApi) -> None:
    updates = KubernetesSource(api, settle=0).updates()
    await nth(updates)
    while len(api._watches) < 2:  # noqa: ASYNC110 - before that there is nothing to be forgotten
        await asyncio.sleep(0.01)
    with api._lock:
        del api._kinds[SLICES][f"{SLICES}/web-1"]
        api.end_watches(forget=True)
    update = await nth(updates)
    assert len(update.removed_workloads) == 1


async def test_aliases_and_slices_of_nobody_are_passed_over(api: FakeApi) -> None:
    put_service(api, "alias", None, type="ExternalName", externalName="example.org")
    value = {"metadata": {"name": "own", "namespace": "shop"}, "addressType": "IPv4"}
    api.put(SLICES, f"{SLICES}/own", value)
    first = await nth(KubernetesSource(api, settle=0).updates())
    assert first.rejections == ()
    assert len(first.services) == 1
