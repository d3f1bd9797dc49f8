# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicies of an API server complete what Istiod tells of them, and are missed by nobody where there are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.cluster.api import POLICIES
from runtime.model.policy import Action, Match, Policy
from runtime.model.waypoint_policies import AtWaypoints
from runtime.source.policy_objects import WithPolicyObjects
from runtime.source.update import Update
from tests.cluster_api.fake import FakeApi

TOLD = Policy(name="p", namespace="shop", action=Action.DENY, groups=(((Match(),),),))


class Istiod:
    """A source that tells what it is told to."""

    name = "istiod"

    def __init__(self) -> None:
        self.news: asyncio.Queue[Update] = asyncio.Queue()
        self.status = self

    def to_json(self) -> dict[str, Any]:
        return {"address": "here"}

    async def updates(self) -> AsyncIterator[Update]:
        while True:
            yield await self.news.get()

    def want_http(self) -> str:
        return "wanted"


class Scene:
    def __init__(self, api: FakeApi) -> None:
        self.api, self.istiod = api, Istiod()
        self.istiod.news.put_nowait(Update(policies=(TOLD,), complete=True))
        self.source = WithPolicyObjects(self.istiod, api, wait=5)
        self._updates: Any = self.source.updates()

    def put(self, method: str = "POST", action: str = "DENY", **operation: Any) -> None:
        rule = {"to": [{"operation": operation or {"methods": [method]}}]}
        self.put_spec({"action": action, "rules": [rule]})

    def put_spec(self, spec: dict[str, Any], name: str = "p") -> None:
        value = {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}
        self.api.put(POLICIES, f"{POLICIES}/{name}", value)

    async def next(self) -> Update:
        update: Update = await asyncio.wait_for(anext(self._updates), 30)
        return update

    async def policy(self) -> Policy:
        (one,) = (await self.next()).policies
        return one

    def trouble(self) -> str:
        return str(self.source.status.to_json()["policy_objects"])

    async def close(self) -> None:
        await self._updates.aclose()
        self.api.end_watches()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene(FakeApi())
    yield made
    await made.close()


def values(policy: Policy) -> list[str]:
    return [one.text.value for rule in policy.rules or () for one in rule.permissions]  # type: ignore[union-attr]


async def test_rules_come_with_the_first_picture_and_change_with_their_object(scene: Scene) -> None:
    scene.put()
    first = await scene.next()
    assert first.complete
    (policy,) = first.policies
    assert (values(policy), policy.groups) == (["POST"], TOLD.groups)
    assert scene.trouble() == "followed"
    scene.put("PUT")
    assert values(await scene.policy()) == ["PUT"]
    scene.api.remove(POLICIES, f"{POLICIES}/p")
    assert await scene.policy() == TOLD
    assert scene.source.want_http() == "wanted"


async def test_an_object_that_istiod_does_not_tell_of_guards_nobody(scene: Scene) -> None:
    scene.put()
    await scene.next()
    scene.istiod.news.put_nowait(Update(removed_policies=("shop/p",)))
    assert (await scene.next()).removed_policies == ("shop/p",)
    scene.put("PUT")
    scene.istiod.news.put_nowait(Update(policies=(TOLD,)))
    assert values(await scene.policy()) in (["POST"], ["PUT"])
    scene.istiod.news.put_nowait(Update(complete=True))
    while not (update := await scene.next()).complete:
        pass
    assert update.policies == ()


async def test_an_object_that_cannot_be_read_is_named_and_says_nothing(scene: Scene) -> None:
    """Not what an older version of it said either: what Istiod tells is of the new one."""
    scene.put()
    await scene.next()
    scene.put(verbs=["GET"])
    update = await scene.next()
    assert update.policies == (TOLD,)
    assert [one.resource for one in update.rejections] == ["AuthorizationPolicy shop/p"]
    assert "spec.rules[0].to[0].operation.verbs: not known here" in update.rejections[0].reason
    scene.put("PUT")
    update = await scene.next()
    assert update.accepted == ("AuthorizationPolicy shop/p",)
    assert values(update.policies[0]) == ["PUT"]


async def test_policies_of_waypoints_are_told_apart_from_those_of_istiod(scene: Scene) -> None:
    scene.put()
    scene.put_spec({"action": "DENY", "targetRefs": [{"kind": "Service", "name": "web"}]}, "q")
    first = await scene.next()
    assert [one.key for one in first.policies] == ["shop/p"]
    assert first.at_waypoints is not None
    assert first.at_waypoints.unknown == ""
    (only,) = first.at_waypoints.policies
    assert (only.key, only.gateways) == ("shop/q", False)
    gateway = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
    scene.put_spec({"targetRefs": [gateway]}, "r")
    news = (await scene.next()).at_waypoints
    assert news is not None
    assert [(one.key, one.gateways) for one in news.policies] == [
        ("shop/q", False),
        ("shop/r", True),
    ]
    scene.put_spec({"targetRefs": [gateway], "surprise": 1}, "r")
    news = (await scene.next()).at_waypoints
    assert news is not None
    assert news.unknown == "AuthorizationPolicy shop/r cannot be read"
    scene.api.remove(POLICIES, f"{POLICIES}/r")
    scene.api.remove(POLICIES, f"{POLICIES}/q")
    while news is None or news.policies or news.unknown:
        news = (await scene.next()).at_waypoints


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Warnings."""
    found: list[str] = []
    monkeypatch.setattr(
        "runtime.source.policy_objects._log.warning",
        lambda text, *more: found.append(text % more),
    )
    return found


@pytest.mark.parametrize(
    ("of", "why"), [("unknown", "does not know them"), ("forbidden", "is forbidden")]
)
async def test_where_they_cannot_be_had_policies_are_as_istiod_tells_them(
    scene: Scene, said: list[str], of: str, why: str
) -> None:
    getattr(scene.api, of).add(POLICIES)
    scene.put()
    first = await scene.next()
    assert first.policies == (TOLD,)
    assert why in scene.trouble()
    assert first.at_waypoints is not None
    assert why in first.at_waypoints.unknown
    getattr(scene.api, of).clear()
    update = await scene.next()
    assert values(update.policies[0]) == ["POST"]
    assert update.at_waypoints == AtWaypoints()
    assert len(said) == 1


async def watched(api: FakeApi) -> None:
    while not api._watches:  # noqa: ASYNC110 - before that there is nothing to end
        await asyncio.sleep(0.01)


async def test_who_may_not_read_them_any_more_keeps_no_old_rules(
    scene: Scene, said: list[str]
) -> None:
    scene.put()
    assert values(await scene.policy()) == ["POST"]
    await watched(scene.api)
    scene.api.forbidden.add(POLICIES)
    scene.api.end_watches()
    update = await scene.next()
    assert update.policies == (TOLD,)
    assert update.at_waypoints is not None
    assert "is forbidden" in update.at_waypoints.unknown
    assert [one.rpartition("; ")[2] for one in said] == ["policies are as istiod tells them"]
    scene.api.forbidden.clear()
    assert values(await scene.policy()) == ["POST"]
    assert scene.trouble() == "followed"


async def test_while_nobody_answers_what_they_said_last_counts(
    scene: Scene, said: list[str]
) -> None:
    scene.put()
    await scene.next()
    await watched(scene.api)
    coming = asyncio.ensure_future(scene.policy())
    scene.api.down = True
    scene.api.end_watches()
    while not said:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert said[0].endswith("does not answer; what they said last counts")
    scene.istiod.news.put_nowait(Update(policies=(TOLD,)))
    assert values(await coming) == ["POST"]
