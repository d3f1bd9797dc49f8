# SPDX-License-Identifier: Apache-2.0
"""Workloads that have a hostname: resolved, refreshed, and the last answer kept."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.source.istiod.hostname import Hostnames, system_lookup
from runtime.source.istiod.source import IstiodSource
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.follower import Follower
from tests.source.istiod.mesh_messages import uid, workload

HOST = "db.example.com"


class Resolver:
    """Answers from a table; a name that is not in it cannot be resolved."""

    def __init__(self, **table: str) -> None:
        self.table = {name.replace("_", "."): addresses for name, addresses in table.items()}
        self.asked: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0

    async def __call__(self, hostname):
        self.asked[hostname] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        if hostname not in self.table:
            raise OSError("Name or service not known")
        return tuple(ip_address(each) for each in self.table[hostname].split())


@pytest.fixture
def with_host(server):
    server.put(ADDRESS_TYPE, uid("db"), workload("db", hostname=HOST), version="1")
    return server


async def test_the_first_update_has_the_addresses(with_host, follow):
    follower = follow(lookup=Resolver(db_example_com="192.0.2.1 2001:db8::1"))
    await follower.synced()
    assert follower.workloads[uid("db")].addresses == (
        ip_address("192.0.2.1"),
        ip_address("2001:db8::1"),
    )


async def test_a_new_answer_is_a_change_and_the_same_answer_is_none(with_host, follow):
    resolver = Resolver(db_example_com="192.0.2.1")
    follower = follow(lookup=resolver, hostname_refresh=0.005)
    await follower.synced()
    await follower.until(lambda: resolver.asked[HOST] >= 5)
    assert len(follower.updates) == 1
    resolver.table[HOST] = "192.0.2.2"
    await follower.until(lambda: len(follower.updates) == 2)
    assert [each.uid for each in follower.updates[1].workloads] == [uid("db")]
    assert follower.workloads[uid("db")].addresses == (ip_address("192.0.2.2"),)


async def test_a_name_that_fails_keeps_its_last_answer_and_is_reported(with_host, follow, caplog):
    resolver = Resolver(db_example_com="192.0.2.1")
    follower = follow(lookup=resolver, hostname_refresh=0.005)
    await follower.synced()
    answers = resolver.table.copy()
    resolver.table.clear()
    await follower.until(lambda: HOST in follower.source.status.unresolved)
    assert follower.workloads[uid("db")].addresses == (ip_address("192.0.2.1"),)
    assert "its last addresses stay" in caplog.text
    resolver.table |= answers
    await follower.until(lambda: not follower.source.status.unresolved)
    assert len(follower.updates) == 1


async def test_a_name_that_cannot_be_resolved_does_not_hold_up_the_rest(with_host, follow, caplog):
    follower = follow(lookup=Resolver(), hostname_wait=0.05)
    await follower.synced()
    assert follower.workloads[uid("db")].addresses == ()
    assert len(follower.services) == 2
    assert follower.source.status.unresolved == {HOST: "Name or service not known"}
    assert "it has no address" in caplog.text


async def test_a_resolver_that_never_answers_does_not_hold_up_the_rest(with_host, follow):
    async def never(_):
        await asyncio.Event().wait()

    follower = follow(lookup=never, hostname_wait=0.05)
    await follower.synced()
    assert len(follower.services) == 2


async def test_a_change_of_the_workload_keeps_its_addresses(with_host, follow):
    follower = follow(lookup=Resolver(db_example_com="192.0.2.1"))
    await follower.synced()
    changed = workload("db", hostname=HOST, node="elsewhere")
    with_host.put(ADDRESS_TYPE, uid("db"), changed, version="2")
    with_host.push()
    await follower.until(lambda: follower.workloads[uid("db")].node == "elsewhere")
    assert follower.workloads[uid("db")].addresses == (ip_address("192.0.2.1"),)


async def test_a_name_that_nobody_has_is_no_longer_looked_up(with_host, follow):
    resolver = Resolver(db_example_com="192.0.2.1", other_example_com="192.0.2.9")
    follower = follow(lookup=resolver, hostname_refresh=0.005)
    await follower.synced()
    moved = workload("db", hostname="other.example.com")
    with_host.put(ADDRESS_TYPE, uid("db"), moved, version="2")
    with_host.push()
    await follower.until(
        lambda: follower.workloads[uid("db")].addresses == (ip_address("192.0.2.9"),)
    )
    before = resolver.asked[HOST]
    with_host.remove(ADDRESS_TYPE, uid("db"))
    with_host.push()
    await follower.until(lambda: uid("db") not in follower.workloads)
    after = resolver.asked["other.example.com"]
    await asyncio.sleep(0.05)
    assert resolver.asked[HOST] == before
    assert resolver.asked["other.example.com"] == after


async def test_names_are_followed_again_when_the_source_is_asked_again(with_host, config, waits):
    resolver = Resolver(db_example_com="192.0.2.1")
    settings = replace(config, hostname_refresh=0.005)
    source = IstiodSource(settings, sleep=waits, lookup=resolver)
    first = Follower(source)
    await first.synced()
    await first.close()
    asked = resolver.asked[HOST]
    await asyncio.sleep(0.05)
    assert resolver.asked[HOST] == asked
    resolver.table[HOST] = "192.0.2.2"
    with_host.remove(ADDRESS_TYPE, uid("a-1"))
    again = Follower(source)
    again.__dict__.update(services=first.services, workloads=first.workloads)
    await again.until(lambda: uid("a-1") not in again.workloads)
    await again.until(lambda: again.workloads[uid("db")].addresses == (ip_address("192.0.2.2"),))
    assert not any(update.complete for update in again.updates)
    await again.close()


async def test_a_thousand_names_are_looked_up_few_at_a_time():
    resolver = Resolver(**{f"h{n}": "192.0.2.1" for n in range(1000)})
    changed: list[Any] = []
    hostnames = Hostnames(changed=changed.append, unresolved={}, refresh=60.0, lookup=resolver)
    names = {f"u{n}": _workload(f"u{n}", f"h{n}") for n in range(1000)}
    hostnames.take(names)
    await hostnames.settle(60)
    assert len(changed) == 1000
    assert resolver.most_at_once <= 8
    await hostnames.close()


def _workload(name, hostname):
    from runtime.model.mesh import Workload

    return Workload(uid=name, name=name, namespace="shop", hostname=hostname)


async def test_the_system_resolves_and_refuses():
    assert ip_address("127.0.0.1") in await system_lookup("localhost")
    assert await system_lookup("192.0.2.5") == (ip_address("192.0.2.5"),)
    with pytest.raises((OSError, ValueError)):
        await system_lookup("a\0b")


def test_a_resolver_that_hangs_does_not_keep_the_process_from_ending(monkeypatch):
    hang, asked = threading.Event(), threading.Event()

    def hangs(*args, **kwargs):
        asked.set()
        hang.wait(60)
        raise OSError("too late")

    monkeypatch.setattr("socket.getaddrinfo", hangs)

    async def gives_up():
        looking = asyncio.ensure_future(system_lookup("db.example.com"))
        await asyncio.sleep(0)
        asked.wait(30)
        looking.cancel()

    asyncio.run(gives_up())  # would wait for the thread, were it one of asyncio's pool
    assert not hang.is_set()
    hang.set()
