# SPDX-License-Identifier: Apache-2.0
"""The process: started with few rights, started again, adopted, ended; and nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import KmeshError
from runtime.kernel.cgroup import cgroup2_root
from runtime.waypoint.node import NodeWaypoint
from runtime.waypoint.place import USER, Place, find_envoy
from runtime.waypoint.process import started
from tests.dataplane.world import World
from tests.waypoint.bookstore import REVIEWS, V3, connect, exchange, recorded, request, until

pytestmark = [pytest.mark.root, pytest.mark.slow]
Run = Callable[..., Awaitable[NodeWaypoint]]


@pytest.fixture
def own(bookstore: World, place: Place) -> Iterator[Place]:
    """A place with a cgroup."""
    made = replace(place, cgroup=cgroup2_root() / f"{bookstore.name}-waypoint")
    yield made
    NodeWaypoint(made, node="n1").stop(keep=False)
    assert made.cgroup is not None
    assert not made.cgroup.exists()
    assert not made.directory.exists()


@pytest.fixture
async def run(own: Place) -> AsyncIterator[Run]:
    """Run a waypoint; a second call ends the one before, as a daemon that ends does."""
    tasks: list[asyncio.Task[None]] = []

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks.clear()

    async def start(**settings: object) -> NodeWaypoint:
        await end()
        made = NodeWaypoint(own, node="n1", **settings)  # type: ignore[arg-type]
        made.put(recorded())
        tasks.append(asyncio.ensure_future(made.run()))
        await until(lambda: made.ready and made.status()["accepted"])
        return made

    yield start
    await end()


async def legacy(own: Place) -> tuple[int, str]:
    reply = await asyncio.to_thread(request, own.listen, REVIEWS, 9080, "/legacy/a", "reviews")
    return reply.status, reply.told["at"]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


async def test_it_has_no_rights_and_is_started_again_when_killed(own: Place, run: Run) -> None:
    told: list[Path] = []
    made = await run(announce=told.append)
    assert await legacy(own) == (200, V3)
    first = made.status()["pid"]
    facts = status_of(first)
    assert facts["Uid"].split() == facts["Gid"].split() == [str(USER)] * 4
    for each in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"):
        assert int(facts[each], 16) == 0, each
    assert (facts["NoNewPrivs"], facts["Groups"]) == ("1", "")
    assert os.getsid(first) == first
    assert own.cgroup is not None
    assert (own.cgroup / "cgroup.procs").read_text().split() == [str(first)]
    for socket in (own.listen, own.admin, own.ads):
        assert socket.stat().st_mode & 0o777 == 0o600
    assert own.directory.stat().st_mode & 0o777 == 0o700

    os.kill(first, signal.SIGKILL)
    await until(lambda: made.crashes == 1)
    assert "SIGKILL" in made.status()["trouble"]
    await until(lambda: made.ready)
    assert made.status()["trouble"] == ""
    assert (made.starts, set(told)) == (2, {own.listen})
    assert await legacy(own) == (200, V3)


async def test_it_outlives_the_daemon_with_its_connections_and_is_adopted(
    own: Place, run: Run
) -> None:
    before = await run()
    pid = before.status()["pid"]
    with connect(own.listen, REVIEWS, 9080) as connection:
        assert exchange(connection, "/legacy/a", "reviews").status == 200
        after = await run()
        assert (after.adopted, after.starts, after.status()["pid"]) == (True, 0, pid)
        assert after.status()["connected"]
        assert exchange(connection, "/legacy/b", "reviews").told["path"] == "/modern/b"
    other = await run(workers=1)  # another configuration of the process is another process
    assert (other.adopted, other.starts) == (False, 1)
    assert started(pid) is None
    assert await legacy(own) == (200, V3)


async def test_one_that_cannot_start_is_told_and_tried_again(
    own: Place, bookstore: World, tmp_path: Path
) -> None:
    script = tmp_path / "envoy"
    script.write_text("#!/bin/sh\necho '[1][critical] nothing works' >&2\nexit 7\n")
    script.chmod(0o755)
    made = NodeWaypoint(replace(own, program=script), node="n1")
    task = asyncio.ensure_future(made.run())
    try:
        await until(lambda: made.starts >= 2)
        assert made.crashes >= 1
        assert "status 7" in made.trouble
        assert "nothing works" in made.trouble
        assert not made.ready
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_somebody_else_may_start_it(own: Place, bookstore: World) -> None:
    made = NodeWaypoint(replace(own, program=None), node="n1", external=True)
    made.put(recorded())
    task = asyncio.ensure_future(made.run())
    log = own.directory.with_name("log")
    try:
        await until(own.bootstrap.exists)
        own.directory.parent.chmod(0o711)  # its working directory must have a path
        with log.open("w") as file:
            os.chown(log, USER, USER)  # its standard output, which Istio's access logs go to
            envoy = await asyncio.create_subprocess_exec(
                *(str(own.program), "-c", own.bootstrap.name, "--disable-hot-restart"),
                cwd=own.directory,
                stdout=file,
                stderr=file,
                user=USER,
                group=USER,
                extra_groups=[],
            )
        try:
            await until(lambda: made.ready)
            assert await legacy(own) == (200, V3)
            assert made.status()["pid"] is None
        finally:
            envoy.kill()
            await envoy.wait()
        await until(lambda: not made.ready)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    made.stop(keep=False)
    assert own.directory.is_dir()  # whoever starts it may have it mounted
    assert not own.bootstrap.exists()


def test_which_envoy(tmp_path: Path) -> None:
    found = find_envoy("auto")
    assert found is not None
    assert found.read_bytes()[:4] == b"\x7fELF"
    assert find_envoy(str(found)) == found
    with pytest.raises(KmeshError, match="no program at"):
        find_envoy(str(tmp_path / "none"))


def test_a_path_that_is_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match="too long for a Unix socket"):
        Place(directory=tmp_path / ("x" * 100), program=None).make()
