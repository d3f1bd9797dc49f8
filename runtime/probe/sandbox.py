# SPDX-License-Identifier: Apache-2.0
"""A place to try things in: a network namespace with nothing but a loopback, and a cgroup of its own.

A supervisor is forked, which makes the place, forks one child for each job, kills by pid what runs
over the budget and removes the place again. So this process never changes its namespaces or its
cgroup, and a job that hangs or crashes costs its own answer only. All of them die with this process;
the one thing that a SIGKILL can leave is an empty cgroup, which the next run removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from runtime.probe import scratch
from runtime.probe.scratch import SetupError

# What the supervisor gets to end its children and to say so.
_GRACE = 0.5
# After that long a supervisor is taken to be stuck in the kernel.
_STUCK = 5.0
_PIPE_BYTES = 1 << 20

Job = Callable[[Path, float], Any]  # (its cgroup, its deadline) -> what JSON can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no answer of a job.

    Attributes:
        reason: one line.
        errno: the kernel's errno when the place could not be made.
        denied: it was refused for want of a privilege.
    """

    reason: str
    errno: int | None = None
    denied: bool = False


@dataclass(slots=True, kw_only=True)
class _Child:
    name: str
    pid: int
    cgroup: Path
    output: bytearray = field(default_factory=bytearray)


def run_jobs(
    jobs: Mapping[str, Job], *, budget_seconds: float, parallel: int = 4
) -> dict[str, Any | Failure]:
    """Run each job in a child of its own, in a scratch cgroup and network namespace.

    Args:
        jobs: what to run, by name.
        budget_seconds: when it is used up what still runs is killed.
        parallel: how many run at once.

    Returns:
        for each name what the job returned, or why there is nothing.
    """
    with running_jobs(jobs, budget_seconds=budget_seconds, parallel=parallel) as answers:
        return answers()


@contextlib.contextmanager
def running_jobs(
    jobs: Mapping[str, Job], *, budget_seconds: float, parallel: int = 4
) -> Iterator[Callable[[], dict[str, Any | Failure]]]:
    """Run jobs as `run_jobs` does, while this process does something else.

    It forks once, on entry: threads that are started inside are no part of what is forked.

    Yields:
        what waits for the answers and returns them.
    """
    if not jobs:
        yield dict
        return
    deadline = time.monotonic() + budget_seconds
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):  # answers wait there for a caller that is busy
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    owner = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        os.close(reader)
        _become(owner, lambda: _supervise(jobs, writer, owner, deadline, parallel))
    os.close(writer)

    def answers() -> dict[str, Any | Failure]:
        found = _answers(_read_until(reader, deadline=deadline + _GRACE))
        lost = found.pop("", Failure(reason="the scratch supervisor ended before its time"))
        return {name: found.get(name, lost) for name in jobs}

    try:
        yield answers
    except BaseException:  # interrupted, say: the place goes all the same
        os.kill(supervisor, signal.SIGTERM)
        deadline = time.monotonic()
        raise
    finally:
        os.close(reader)
        _reap(supervisor, deadline=deadline + _STUCK)


def _become(parent: int, work: Callable[[], None]) -> NoReturn:
    """Be a child that dies with its parent, shares none of its handlers and never returns."""
    status = 1
    try:
        scratch.die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        # The terminal signals all of its processes: it is for the parent to end its children.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        work()
        status = 0
    finally:
        os._exit(status)


def _read_until(reader: int, *, deadline: float) -> bytes:
    """All that comes before the other end closes, or before the deadline; what is there by then is read."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    data = bytearray()
    while poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        chunk = os.read(reader, 65536)
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _answers(data: bytes) -> dict[str, Any | Failure]:
    found: dict[str, Any | Failure] = {}
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            answer = json.loads(line)
            failed = answer.get("failure")
            found[answer["name"]] = Failure(**failed) if failed else answer["result"]
    return found


def _reap(pid: int, *, deadline: float) -> None:
    """Wait for a child; after the deadline kill it."""
    with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored it is reaped already
        while os.waitpid(pid, os.WNOHANG)[0] != pid:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.0005)


def _write(writer: int, **answer: Any) -> None:
    data = memoryview(json.dumps(answer).encode() + b"\n")
    while data:
        data = data[os.write(writer, data) :]


def _failure(name: str, reason: str, *, code: int | None = None) -> dict[str, Any]:
    denied = code in (errno.EPERM, errno.EACCES)
    return {"name": name, "failure": {"reason": reason, "errno": code, "denied": denied}}


def _supervise(
    jobs: Mapping[str, Job], writer: int, owner: int, deadline: float, parallel: int
) -> None:
    signal.signal(signal.SIGTERM, _stop)
    try:
        place = scratch.make(owner)
    except SetupError as error:
        _write(writer, **_failure("", str(error), code=error.errno))
        return
    try:
        _run_all(jobs, place, writer, deadline, parallel)
    finally:
        scratch.remove(place, patience=_STUCK / 2)


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit


def _run_all(
    jobs: Mapping[str, Job], place: Path, writer: int, deadline: float, parallel: int
) -> None:
    waiting = list(jobs.items())
    running: dict[int, _Child] = {}
    poll = select.poll()
    try:
        while waiting or running:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            while waiting and len(running) < parallel:
                name, job = waiting.pop(0)
                reader, child = _start(name, job, place / name, deadline)
                running[reader] = child
                poll.register(reader, select.POLLIN)
            for reader, _event in poll.poll(left * 1000):
                chunk = os.read(reader, 65536)
                running[reader].output += chunk
                if not chunk:
                    poll.unregister(reader)
                    os.close(reader)
                    _finish(running.pop(reader), writer)
    finally:
        for reader, child in running.items():
            os.close(reader)
            _kill(child)
    for child in running.values():
        _write(
            writer, **_failure(child.name, "no answer before the time for all checks was used up")
        )
    for name, _job in waiting:
        _write(writer, **_failure(name, "not begun before the time for all checks was used up"))


def _start(name: str, job: Job, cgroup: Path, deadline: float) -> tuple[int, _Child]:
    reader, writer = os.pipe()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(supervisor, lambda: _work(name, job, cgroup, deadline, writer))
    os.close(writer)
    return reader, _Child(name=name, pid=pid, cgroup=cgroup)


def _work(name: str, job: Job, cgroup: Path, deadline: float, writer: int) -> None:
    try:
        scratch.enter(cgroup)
        answer = {"name": name, "result": job(cgroup, deadline)}
        json.dumps(answer)
    except SetupError as error:
        answer = _failure(name, str(error), code=error.errno)
    except BaseException as error:  # noqa: BLE001 - a child has no caller that could tell it
        answer = _failure(name, f"the check itself failed: {type(error).__name__}: {error}")
    _write(writer, **answer)


def _finish(child: _Child, writer: int) -> None:
    _pid, status = os.waitpid(child.pid, 0)
    scratch.remove(child.cgroup, patience=0)
    if child.output.endswith(b"\n"):
        os.write(writer, bytes(child.output))
        return
    ended = os.waitstatus_to_exitcode(status)
    how = f"was ended by signal {-ended}" if ended < 0 else f"ended with status {ended}"
    _write(writer, **_failure(child.name, f"the check {how} before it had an answer"))


def _kill(child: _Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
