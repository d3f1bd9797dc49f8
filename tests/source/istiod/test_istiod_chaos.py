# SPDX-License-Identifier: Apache-2.0
"""Everything at once, at random: in the end the consumer has what the server has."""

from __future__ import annotations

import asyncio
import random

import pytest

from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.source.istiod.mesh_messages import policy, service, service_name, uid, workload
from tests.source.istiod.xds_server import XdsServer

NAMES = [f"n{number}" for number in range(8)]


class Chaos:
    """Random events, each of which real Istiods and networks have been seen to do."""

    def __init__(self, server: XdsServer, follower, seed: int) -> None:
        self._server, self._follower = server, follower
        self._random = random.Random(seed)
        self._versions = 0

    async def step(self) -> None:
        events = [self._change] * 8 + [self._push] * 4 + [self._drop, self._restart, self._resend]
        events += [self._garbage, self._pause, self._breathe, self._breathe]
        await self._random.choice(events)()

    async def _change(self) -> None:
        name, address = self._random.choice(NAMES), f"10.244.0.{self._random.randrange(250)}"
        self._versions += 1
        kind, key, message, version = self._random.choice(
            [
                (ADDRESS_TYPE, service_name(name), service(name, address), str(self._versions)),
                (ADDRESS_TYPE, uid(name), workload(name, address), str(self._versions)),
                (ADDRESS_TYPE, uid(name), b"\xff", str(self._versions)),
                (
                    ADDRESS_TYPE,
                    service_name(name),
                    service(name, ports={0: 1}),
                    str(self._versions),
                ),
                (AUTHORIZATION_TYPE, f"shop/{name}", policy(name, dry_run=self._versions % 2), ""),
            ]
        )
        if key in self._server.world.get(kind, {}) and self._random.random() < 0.4:
            self._server.remove(kind, key)
        else:
            self._server.put(kind, key, message, version=version)
            for stream in self._server.open:
                if not version:  # a push of a policy carries it, whatever was known
                    stream.known.get(kind, {}).pop(key, None)

    async def _push(self) -> None:
        self._server.push()

    async def _drop(self) -> None:
        await self._server.drop()

    async def _restart(self) -> None:
        await self._server.stop()
        for _ in range(self._random.randrange(3)):
            await self._change()
        await self._server.start()

    async def _resend(self) -> None:
        for stream in self._server.open:
            if stream.responses:
                self._server.send(stream.responses[-1].SerializeToString())

    async def _garbage(self) -> None:
        odd = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, nonce="odd")
        odd.resources.add(name=uid(self._random.choice(NAMES)), version="odd")
        self._server.send(
            self._random.choice([odd.SerializeToString(), self._random.randbytes(30)])
        )

    async def _pause(self) -> None:
        if self._follower.may_take.is_set():
            self._follower.may_take.clear()
        else:
            self._follower.may_take.set()

    async def _breathe(self) -> None:
        await asyncio.sleep(self._random.random() * 0.02)


@pytest.mark.parametrize("seed", range(12))
async def test_any_course_of_events_ends_in_agreement(server, follow, seed):
    follower = follow(largest_request=300 if seed % 3 == 0 else 4_000_000)
    chaos = Chaos(server, follower, seed)
    for _ in range(120):
        await chaos.step()
    follower.may_take.set()
    # Mend what is bad, so that every resource can be compared.
    for number, name in enumerate(NAMES):
        server.put(ADDRESS_TYPE, uid(name), workload(name, f"10.244.7.{number}"), version="mended")
        message = service(name, f"10.96.7.{number}")
        server.put(ADDRESS_TYPE, service_name(name), message, version="mended")
    await server.drop()
    server.push()
    there = server.world[ADDRESS_TYPE]

    def agreed() -> bool:
        addresses = follower.services.keys() | follower.workloads.keys()
        policies = follower.policies.keys() == server.world[AUTHORIZATION_TYPE].keys()
        mended = all(
            uid(name) in follower.workloads
            and str(follower.workloads[uid(name)].addresses[0]) == f"10.244.7.{number}"
            and service_name(name) in follower.services
            and str(follower.services[service_name(name)].addresses[0]) == f"/10.96.7.{number}"
            for number, name in enumerate(NAMES)
        )
        return policies and mended and addresses == there.keys() and not follower.rejected

    await follower.until(agreed)
    assert follower.source.status.refused == {}
    assert sum(update.complete for update in follower.updates) == 1
    assert follower.source.status.services == len(follower.services)
    assert follower.source.status.workloads == len(follower.workloads)
