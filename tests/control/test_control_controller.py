# SPDX-License-Identifier: Apache-2.0
"""The controller, with real tables and a kernel that can be told to fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from ipaddress import ip_address

import pytest

from runtime.control import controller as module
from runtime.control.controller import Controller
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.kernel.apply import ApplyError
from runtime.model.mesh import NetworkAddress, Service, ServicePort, Workload
from runtime.source.update import Rejection, Update
from runtime.tables.ops import Contents, Op
from runtime.tables.services import ServiceTables

WEB = "shop/web.shop.svc.cluster.local"
PORT = ServicePort(service_port=80, target_port=8080)


def service(name: str = "web", address: str = "10.96.0.10") -> Service:
    return Service(
        name=name,
        namespace="shop",
        hostname=f"{name}.shop.svc.cluster.local",
        addresses=(NetworkAddress(ip_address(address)),),
        ports=(PORT,),
    )


def workload(number: int) -> Workload:
    return Workload(
        uid=f"w{number}",
        name=f"w{number}",
        namespace="shop",
        addresses=(ip_address(f"10.244.0.{number}"),),
        services={WEB: (PORT,)},
    )


FIRST = Update(services=(service(),), workloads=(workload(1), workload(2)), complete=True)


class MemoryKernel:
    """Three maps in memory; refuses as many times as it is told, or one resource always."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[bytes, bytes]] = {"frontends": {}, "clusters": {}, "slots": {}}
        self.refuse = 0
        self.hates = ""

    def apply(self, ops: Sequence[Op]) -> None:
        for number, op in enumerate(ops):
            if self.refuse and number == len(ops) // 2:  # half of it was carried out
                self.refuse -= 1
                raise KmeshError("map slots: update: Out of memory")
            if op.resource == self.hates:
                continue
            if op.value is None:
                self.maps[op.table].pop(op.key, None)
            else:
                self.maps[op.table][op.key] = op.value
        if any(op.resource == self.hates for op in ops):
            raise ApplyError({self.hates: "Argument list too long"})

    def contents(self) -> Contents:
        return Contents(**{name: dict(entries) for name, entries in self.maps.items()})

    def sizes(self) -> dict[str, int]:
        return {name: len(entries) for name, entries in self.maps.items()}


class ListSource:
    """Says what it was given, then fails or stays silent."""

    name = "list"

    def __init__(self, *updates: Update, failures: int = 0) -> None:
        self._updates = list(updates)
        self._failures = failures
        self.drained = asyncio.Event()

    async def updates(self) -> AsyncIterator[Update]:
        if self._failures:
            self._failures -= 1
            raise KmeshError("nobody answers")
        while self._updates:
            yield self._updates.pop(0)
        self.drained.set()
        await asyncio.Event().wait()


class Run:
    """A controller and what it worked with."""

    def __init__(self) -> None:
        self.kernel, self.view, self.synced = MemoryKernel(), View(), 0

    async def to_the_end(self, source: ListSource, *, retried: bool = False) -> None:
        controller = Controller(
            source,
            tables=ServiceTables(),
            kernel=self.kernel,
            view=self.view,
            lock=threading.Lock(),
            on_synced=self._count,
        )
        task = asyncio.create_task(controller.run())
        try:
            await asyncio.wait_for(source.drained.wait(), timeout=20)
            while self.kernel.refuse or (retried and self.view.trouble):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _count(self) -> None:
        self.synced += 1


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", (0,))


@pytest.fixture
def run() -> Run:
    return Run()


async def test_the_first_picture_reaches_the_kernel_and_is_reported_once(run: Run) -> None:
    await run.to_the_end(ListSource(FIRST, Update(removed_workloads=("w2",))))
    assert run.kernel.sizes() == {"frontends": 1, "clusters": 1, "slots": 1}
    assert run.synced == 1
    assert run.view.synced is not None
    assert (list(run.view.services), list(run.view.workloads)) == ([WEB], ["w1"])


async def test_it_is_not_synced_before_a_picture_is_whole(run: Run) -> None:
    await run.to_the_end(ListSource(Update(services=(service(),))))
    assert run.synced == 0
    assert run.view.synced is None


async def test_a_kernel_that_refuses_half_way_gets_the_rest_later(run: Run) -> None:
    run.kernel.refuse = 3
    await run.to_the_end(ListSource(FIRST), retried=True)
    assert run.kernel.refuse == 0
    assert run.kernel.sizes() == {"frontends": 1, "clusters": 1, "slots": 2}
    assert run.view.trouble == ""
    assert run.synced == 1


async def test_a_resource_that_the_kernel_refuses_holds_up_nothing(run: Run) -> None:
    run.kernel.hates = WEB
    other = Update(services=(service("api", "10.96.0.11"),))
    await run.to_the_end(ListSource(FIRST, other, Update(services=(service("db", "10.96.0.12"),))))
    assert run.kernel.sizes()["frontends"] == 2
    assert run.view.failed == {WEB: "Argument list too long"}
    assert "lags behind" in run.view.trouble


async def test_a_kernel_that_takes_nothing_is_not_synced(run: Run) -> None:
    run.kernel.hates = WEB
    await run.to_the_end(ListSource(FIRST))
    assert run.synced == 0
    assert run.view.synced is None


async def test_a_source_that_fails_is_asked_again(run: Run) -> None:
    await run.to_the_end(ListSource(FIRST, failures=2))
    assert run.kernel.sizes()["frontends"] == 1
    assert run.view.trouble == ""


async def test_rejections_are_kept_until_they_end(run: Run) -> None:
    bad = Update(
        rejections=(Rejection(resource="a", reason="x"), Rejection(resource="b", reason="y"))
    )
    await run.to_the_end(ListSource(FIRST, bad, Update(accepted=("a",))))
    assert run.view.rejected == {"b": "y"}


async def test_a_resource_that_comes_anew_is_no_longer_rejected(run: Run) -> None:
    bad = Update(rejections=(Rejection(resource=WEB, reason="x"),))
    await run.to_the_end(ListSource(FIRST, bad, Update(services=(service(address="10.96.0.9"),))))
    assert run.view.rejected == {}


async def test_a_resource_that_cannot_be_served_is_named_and_the_rest_works(run: Run) -> None:
    twin = Update(services=(service("zzz"), service("api", "10.96.0.11")))
    await run.to_the_end(ListSource(FIRST, twin))
    assert list(run.view.failed) == ["shop/zzz.shop.svc.cluster.local"]
    assert run.kernel.sizes()["frontends"] == 2


async def test_what_an_update_does_not_say_is_gone_when_it_is_whole(run: Run) -> None:
    await run.to_the_end(ListSource(FIRST, Update(complete=True)))
    assert run.kernel.sizes() == {"frontends": 0, "clusters": 0, "slots": 0}
    assert run.view.services == {}


def test_the_view_describes_services_with_their_endpoints() -> None:
    view = View()
    view.take(FIRST)
    (described,) = view.describe_services()
    assert described["addresses"] == ["10.96.0.10"]
    assert [each["addresses"] for each in described["endpoints"]] == [
        ["10.244.0.1"],
        ["10.244.0.2"],
    ]
    assert described["endpoints"][0]["ports"][0]["target_port"] == 8080
    assert [each["uid"] for each in view.describe_workloads()] == ["w1", "w2"]
