# SPDX-License-Identifier: Apache-2.0
"""One resource type by itself: odd responses, and the words of a refusal."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.source.istiod.kinds import AddressKind, AuthorizationKind
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.subscription import Outcome, Subscription
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.source.istiod.mesh_messages import service, service_name, uid, workload

A = service_name("a")
GOOD = service("a", "10.96.0.1").SerializeToString()
BAD = b"\xff"


def response(*resources: tuple[str, str, bytes], removed: tuple[str, ...] = ()) -> Any:
    made = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, removed_resources=removed)
    for name, version, payload in resources:
        resource = made.resources.add(name=name, version=version)
        resource.resource.type_url = ADDRESS_TYPE
        resource.resource.value = payload
    return made


@pytest.fixture
def subscription() -> Subscription:
    return Subscription(AddressKind())


async def test_a_resource_of_another_type_is_refused(subscription):
    odd = response((A, "1", GOOD))
    odd.resources[0].resource.type_url = AUTHORIZATION_TYPE
    outcome = await subscription.apply(odd)
    assert AUTHORIZATION_TYPE in outcome.refused[A]
    assert not outcome.changes.services


async def test_a_resource_without_content_or_name_is_refused(subscription):
    odd = response(("", "1", GOOD))
    odd.resources.add(name=A, version="1")
    outcome = await subscription.apply(odd)
    assert outcome.refused == {"": "it has no name", A: "its type is ''"}
    assert (
        "(no name)"
        in subscription.answer(DeltaDiscoveryResponse(nonce="n"), outcome).error_detail.message
    )


async def test_of_one_name_twice_the_last_counts(subscription):
    outcome = await subscription.apply(response((A, "1", BAD), (A, "2", GOOD)))
    assert not outcome.refused
    assert subscription.versions == {A: "2"}
    assert not subscription.refused
    outcome = await subscription.apply(response((A, "3", GOOD), (A, "4", BAD)))
    assert outcome.changes.services[A] is not None
    assert subscription.versions == {A: "3"}
    assert list(subscription.refused) == [A]


async def test_an_unchanged_resource_beats_its_own_removal(subscription):
    await subscription.apply(response((A, "1", GOOD)))
    outcome = await subscription.apply(response((A, "1", GOOD), removed=(A,)))
    assert not outcome.changes
    assert subscription.versions == {A: "1"}


async def test_a_refused_resource_is_not_removed_by_the_same_response(subscription):
    await subscription.apply(response((A, "1", GOOD)))
    outcome = await subscription.apply(response((A, "2", BAD), removed=(A,)))
    assert not outcome.changes.services
    assert subscription.versions == {A: "1"}


def test_a_refusal_names_some_and_counts_the_rest():
    outcome = Outcome(refused={f"name-{n}": "why" for n in range(50)})
    detail = (
        Subscription(AddressKind()).answer(DeltaDiscoveryResponse(nonce="n"), outcome).error_detail
    )
    assert detail.message.startswith("50 refused: name-0: why; ")
    assert detail.message.endswith("; and 30 more")
    assert detail.code == 3


async def test_a_refused_name_is_told_in_one_line_with_its_type(subscription):
    await subscription.apply(response(("two\nlines", "1", BAD)))
    assert list(subscription.refusals()) == [r"address 'two\nlines'"]
    policies = Subscription(AuthorizationKind())
    policies.refused["a/b"] = "why"
    assert policies.refusals() == {"policy a/b": "why"}


async def test_a_workload_costs_less_than_a_kilobyte(subscription):
    """The initial sync of 100,000 workloads has to fit in memory beside everything else."""
    count = 20_000
    resources = []
    for n in range(count):
        name = f"a-6d4cf56db6-{n:05d}"
        address = str(ip_address(0x0AF40000 + n))
        message = workload(name, address, serves=(f"s{n // 10}",), node=f"node-{n % 100}")
        resources.append((uid(name), f"{n:016x}", message.SerializeToString()))
    made = response(*resources)
    tracemalloc.start()
    try:
        outcome = await subscription.apply(made)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(outcome.changes.workloads) == count
    assert used / count < 800


async def test_the_collector_runs_again_after_a_large_response(subscription):
    many = [(f"n{n}", "1", BAD) for n in range(2000)]
    task = asyncio.ensure_future(subscription.apply(response(*many)))
    await asyncio.sleep(0)
    assert not gc.isenabled()
    await task
    assert gc.isenabled()
    task = asyncio.ensure_future(subscription.apply(response(*many)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gc.isenabled()
    assert len(subscription.refused) == 2000
