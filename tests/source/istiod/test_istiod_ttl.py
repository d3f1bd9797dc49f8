# SPDX-License-Identifier: Apache-2.0
"""Hostnames are looked up again when DNS says that they expire; a DNS server of our own says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.asyncresolver import Resolver

from runtime.model.mesh import IPAddress, Workload
from runtime.source.istiod import hostname as module
from runtime.source.istiod.hostname import Hostnames
from runtime.source.istiod.time_to_live import time_to_live


@dataclass(eq=False)
class Server(asyncio.DatagramProtocol):
    """Answers from `zone`: lines as in a zone file, by name and type; silent where told to be."""

    zone: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    silent: bool = False
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.silent:
            return
        query = dns.message.from_wire(data)
        asked = query.question[0]
        name, kind = asked.name.to_text(), dns.rdatatype.to_text(asked.rdtype)
        answer = dns.message.make_response(query)
        lines = self.zone.get((name, kind), self.zone.get((name, ""), None))
        if lines is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        for line in lines or ():
            owner, ttl, type_, *rest = line.split()
            answer.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", type_, " ".join(rest)))
        assert self.transport
        self.transport.sendto(answer.to_wire(), addr)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    yield made
    transport.close()


@pytest.fixture
def resolver(server: Server) -> Resolver:
    made = Resolver(configure=False)
    assert server.transport
    made.nameservers = ["127.0.0.1"]
    made.port = server.transport.get_extra_info("sockname")[1]
    return made


async def test_the_first_address_to_expire_counts(server: Server, resolver: Resolver) -> None:
    server.zone["db.example.com.", "A"] = ["db.example.com. 30 A 192.0.2.1"]
    server.zone["db.example.com.", "AAAA"] = ["db.example.com. 7 AAAA 2001:db8::1"]
    assert await time_to_live("db.example.com", resolver=resolver) == 7


async def test_one_family_is_enough(server: Server, resolver: Resolver) -> None:
    server.zone["db.example.com.", "A"] = ["db.example.com. 30 A 192.0.2.1"]
    server.zone["db.example.com.", "AAAA"] = []
    assert await time_to_live("db.example.com", resolver=resolver) == 30


async def test_an_alias_may_expire_before_what_it_points_at(
    server: Server, resolver: Resolver
) -> None:
    server.zone["db.example.com.", ""] = [
        "db.example.com. 5 CNAME one.example.com.",
        "one.example.com. 300 A 192.0.2.1",
    ]
    assert await time_to_live("db.example.com", resolver=resolver) == 5


async def test_what_dns_does_not_know_has_no_time(
    server: Server, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await time_to_live("nowhere.example.com", resolver=resolver) is None
    assert await time_to_live("a..b", resolver=resolver) is None
    monkeypatch.setattr("runtime.source.istiod.time_to_live._PATIENCE", 0.1)
    server.silent = True
    assert await time_to_live("db.example.com", resolver=resolver) is None


@pytest.mark.parametrize(
    ("life", "least", "most"),
    [(20.0, 20.0, 24.0), (0.0, 1.0, 1.2), (10.0**9, 3600.0, 4320.0), (None, 24.0, 36.0)],
)
async def test_the_next_look_up_follows_the_answer(
    life: float | None, least: float, most: float
) -> None:
    async def lookup(_name: str) -> tuple[IPAddress, ...]:
        return ()

    async def told(_name: str) -> float | None:
        return life

    names = Hostnames(changed=print, unresolved={}, refresh=30.0, lookup=lookup, life=told)
    for _ in range(50):
        assert least <= await names._believed_for("x") <= most


async def test_a_short_life_brings_the_next_address_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixed time is an hour: only what DNS says can be the reason."""
    monkeypatch.setattr(module, "_LEAST", 0.01)
    answers = iter(range(1, 255))
    changed: list[Workload] = []
    thrice = asyncio.Event()

    def note(workload: Workload) -> None:
        changed.append(workload)
        if len(changed) == 3:
            thrice.set()

    async def lookup(_name: str) -> tuple[IPAddress, ...]:
        return (ip_address(f"192.0.2.{next(answers)}"),)

    async def life(_name: str) -> float | None:
        return 0.01

    names = Hostnames(changed=note, unresolved={}, refresh=3600.0, lookup=lookup, life=life)
    names.take({"w": Workload(uid="w", name="w", namespace="ns", addresses=(), hostname="db")})
    async with asyncio.timeout(20):
        await thrice.wait()
    await names.close()
