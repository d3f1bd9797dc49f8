# SPDX-License-Identifier: Apache-2.0
"""HTTPRoutes from the API server: there or not, and joined as those of files are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from runtime.cluster.api import POLICIES, ROUTES
from runtime.model.http import Forward
from runtime.model.http_picture import HttpPicture
from runtime.plan.guards import why_not
from runtime.source.kubernetes_api import KubernetesSource
from runtime.source.update import Update
from tests.cluster_api.fake import FakeApi
from tests.source.test_source_kubernetes import nth, put_service, put_slice
from tests.source.test_source_policy import ALLOW_GET, BY_WHO, BY_WHO_NOT, UNREADABLE, lets_in

WEB = "shop/web:80"
CLUSTER = "outbound|80||{}.shop.svc.cluster.local"


def put_route(api: FakeApi, name: str, backend: str = "canary", **spec: Any) -> None:
    value = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"backendRefs": [{"name": backend, "port": 80}]}],
            **spec,
        },
    }
    api.put(ROUTES, f"{ROUTES}/{name}", value)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    made = FakeApi()
    for number, name in enumerate(("web", "canary"), start=1):
        put_service(made, name, f"10.96.0.{number}")
        put_slice(made, name, f"10.0.0.{number}")
    yield made
    made.end_watches()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a thread brings it about
            await asyncio.sleep(0.01)


class Following:
    """The picture of HTTP that the updates tell."""

    def __init__(self, api: FakeApi) -> None:
        self.updates = KubernetesSource(api, settle=0).updates()
        self.http = HttpPicture()

    async def next(self) -> Update:
        update = await nth(self.updates)
        if update.http is not None:
            self.http.take(update.http)
        return update

    def backends(self) -> list[str]:
        (host,) = self.http.tables[WEB].virtual_hosts
        actions = [route.action for route in host.routes]
        return [a.clusters[0].name for a in actions if isinstance(a, Forward)]


async def test_routes_are_joined_with_services_and_slices(api: FakeApi) -> None:
    api.unknown.clear()
    put_route(api, "one")
    seen = Following(api)
    first = await seen.next()
    assert first.complete
    assert first.http is not None
    assert first.http.complete
    assert seen.backends() == [CLUSTER.format("canary")]
    (port,) = seen.http.listeners[WEB].ports
    assert (str(port.address), port.port) == ("10.96.0.1", 80)
    (endpoint,) = seen.http.endpoints[CLUSTER.format("canary")].endpoints
    assert (str(endpoint.address), endpoint.port) == ("10.0.0.2", 8080)


async def test_changes_of_routes_and_of_endpoints_are_told_alone(api: FakeApi) -> None:
    api.unknown.clear()
    put_route(api, "one")
    seen = Following(api)
    await seen.next()
    put_slice(api, "canary", "10.0.0.2", "10.0.0.3")
    second = await seen.next()
    assert second.http is not None
    assert set(second.http.endpoints) == {CLUSTER.format("canary")}
    assert not second.http.tables
    put_route(api, "one", backend="web")
    await seen.next()
    assert seen.backends() == [CLUSTER.format("web")]
    api.remove(ROUTES, f"{ROUTES}/one")
    await seen.next()
    assert not seen.http.tables
    assert not seen.http.listeners


async def test_cluster_without_the_gateway_api_goes_on_and_takes_routes_once_there(
    api: FakeApi,
) -> None:
    seen = Following(api)
    first = await seen.next()
    assert first.complete
    assert first.http is not None
    assert first.http.complete, "what was there before is gone"
    assert not seen.http.tables
    assert len(first.services) == 2
    put_route(api, "one")
    api.unknown.clear()
    await seen.next()
    assert seen.backends() == [CLUSTER.format("canary")]
    api.unknown.add(ROUTES)
    api.end_watches()
    await seen.next()
    assert not seen.http.tables


async def test_absence_is_said_once(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "runtime.source.kubernetes_api._log.info", lambda text, *more: said.append(text % more)
    )
    asked = 0
    get = api.get

    def count(path: str, **query: Any) -> Any:
        nonlocal asked
        asked += path == ROUTES
        return get(path, **query)

    monkeypatch.setattr(api, "get", count)
    seen = Following(api)
    await seen.next()
    coming = asyncio.ensure_future(seen.next())
    while asked < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    put_service(api, "other", "10.96.0.9")
    await coming
    assert said == [
        "HTTPRoute: the API server does not know them; going on without, until that changes"
    ]


async def test_without_the_right_to_read_them_it_goes_on(api: FakeApi) -> None:
    """A cluster role of an earlier chart."""
    api.unknown.clear()
    api.forbidden.add(ROUTES)
    source = KubernetesSource(api, settle=0)
    first = await nth(source.updates())
    assert first.complete
    assert first.http is not None
    assert not first.http.tables


async def test_bad_route_costs_only_itself_and_gateways_routes_are_passed_over(
    api: FakeApi,
) -> None:
    api.unknown.clear()
    put_route(api, "gateway", parentRefs=[{"name": "edge"}], rules=[{"matches": "odd"}])
    put_route(api, "good")
    put_route(api, "bad", rules=[{"matches": [{"path": {"value": "x"}}]}])
    seen = Following(api)
    first = await seen.next()
    (rejection,) = first.rejections
    assert rejection.resource == "HTTPRoute shop/bad"
    assert "must begin with a /" in rejection.reason
    assert seen.backends() == [CLUSTER.format("canary")]
    put_route(api, "good", rules=[{"matches": [{"path": {"value": "x"}}]}])
    assert (await seen.next()).rejections
    assert seen.backends() == [CLUSTER.format("canary")], "its last good version serves"


async def test_policies_guard_services_as_those_of_files_do(api: FakeApi) -> None:
    """By the labels that services select: pods are not asked for."""
    value = {
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}]},
    }
    seen = Following(api)
    first = await seen.next()
    assert first.policies == ()
    api.put(POLICIES, f"{POLICIES}/p", value)
    second = await seen.next()
    assert [one.key for one in second.policies] == ["shop/p"]
    assert set(seen.http.tables) == {"shop/web:80", "shop/canary:80"}
    api.remove(POLICIES, f"{POLICIES}/p")
    assert (await seen.next()).removed_policies == ("shop/p",)
    assert not seen.http.tables


def put_policy(api: FakeApi, **spec: Any) -> None:
    value = {"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}
    api.put(POLICIES, f"{POLICIES}/p", value)


@pytest.mark.parametrize(("rule", "action"), [(BY_WHO, "DENY"), (BY_WHO_NOT, "ALLOW")])
async def test_rules_on_identities_refuse_as_pods_are_not_asked_for(
    api: FakeApi, rule: Any, action: str
) -> None:
    put_policy(api, action=action, rules=[rule])
    (policy,) = (await Following(api).next()).policies
    assert not lets_in(policy)
    assert "identities" in why_not([policy])[0]


async def test_a_policy_that_was_never_good_opens_no_door(api: FakeApi) -> None:
    put_policy(api, action="DENY", rules=[UNREADABLE])
    seen = Following(api)
    first = await seen.next()
    (policy,) = first.policies
    assert not lets_in(policy)
    assert "operation.verbs: not known here" in why_not([policy])[0]
    assert [one.resource for one in first.rejections] == ["AuthorizationPolicy shop/p"]
    put_policy(api, rules=[ALLOW_GET], action="LOG")
    (policy,) = (await seen.next()).policies
    assert "spec.action" in why_not([policy])[0]
    put_policy(api, rules=[ALLOW_GET])
    (good,) = (await seen.next()).policies
    assert why_not([good]) == ()
    put_policy(api, rules=[UNREADABLE])
    bad = await seen.next()
    assert (bad.policies, bad.removed_policies, len(bad.rejections)) == ((), (), 1)
    api.remove(POLICIES, f"{POLICIES}/p")
    assert (await seen.next()).removed_policies == ("shop/p",)
    put_policy(api, rules=[UNREADABLE])
    assert not lets_in((await seen.next()).policies[0])


async def test_without_the_right_to_read_policies_it_says_so_until_it_has_it(api: FakeApi) -> None:
    source = KubernetesSource(api, settle=0)
    api.forbidden.add(POLICIES)
    api.unknown.add(POLICIES)
    updates = source.updates()
    assert (await nth(updates)).complete
    assert source.status.to_json()["unguarded"] == "", "a cluster without Istio has none"
    coming = asyncio.ensure_future(nth(updates))
    api.unknown.discard(POLICIES)
    put_policy(api, rules=[ALLOW_GET])
    await until(lambda: "is forbidden" in source.status.to_json()["unguarded"])
    api.forbidden.clear()
    assert [one.key for one in (await coming).policies] == ["shop/p"]
    assert source.status.to_json()["unguarded"] == ""


async def test_trouble_with_one_kind_is_told_whatever_else_is_heard(api: FakeApi) -> None:
    source = KubernetesSource(api, settle=0)
    updates = source.updates()
    await nth(updates)
    coming = asyncio.ensure_future(nth(updates))
    while len(api._watches) < 3:  # noqa: ASYNC110 - no routes: they are not known
        await asyncio.sleep(0.01)
    api.forbidden.add(POLICIES)
    api.end_watches()
    await until(lambda: "is forbidden" in source.status.to_json()["last_error"])
    put_service(api, "other", "10.96.0.9")
    await coming
    told = source.status.to_json()
    assert told["last_error"].startswith("AuthorizationPolicy: GET")
    assert told["unguarded"] == "", "what was heard last holds"
