# SPDX-License-Identifier: Apache-2.0
"""The scratch place goes away whatever happens: overrun, crash, interruption, SIGKILL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.probe.sandbox import Failure, run_jobs
from runtime.probe.scratch import cgroup2_mounts, remove_leftovers, start_time
from tests.probe.behaviour.battery_support import BUDGET, places

pytestmark = pytest.mark.root


def _hang(_cgroup: Path, _deadline: float) -> None:
    time.sleep(3600)


def _quick(_cgroup: Path, _deadline: float) -> int:
    return 42


def test_answers(nothing_left: None) -> None:
    jobs = {name: (lambda _c, _d, name=name: [name, 1]) for name in ("a", "b", "c")}
    answers = run_jobs(jobs, budget_seconds=BUDGET, parallel=2)
    assert answers == {name: [name, 1] for name in ("a", "b", "c")}


def test_large_answers(nothing_left: None) -> None:
    """Larger than a pipe holds."""
    answers = run_jobs({"a": lambda _c, _d: "x" * 300_000}, budget_seconds=BUDGET)
    assert answers == {"a": "x" * 300_000}


def test_overrun_is_killed_and_costs_its_own_answer_only(nothing_left: None) -> None:
    answers = run_jobs({"hang": _hang, "quick": _quick}, budget_seconds=1)
    assert answers["quick"] == 42
    assert isinstance(answers["hang"], Failure)
    assert "no answer before the time" in answers["hang"].reason


def test_what_is_not_begun_says_so(nothing_left: None) -> None:
    answers = run_jobs({"hang": _hang, "quick": _quick}, budget_seconds=0.5, parallel=1)
    assert "not begun" in answers["quick"].reason


def test_crash_costs_its_own_answer_only(nothing_left: None) -> None:
    def crash(_cgroup: Path, _deadline: float) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    answers = run_jobs({"crash": crash, "quick": _quick}, budget_seconds=BUDGET)
    assert answers["quick"] == 42
    assert "signal 9" in answers["crash"].reason


def test_exception_is_told(nothing_left: None) -> None:
    empty: dict[str, int] = {}
    answers = run_jobs({"wrong": lambda _c, _d: empty["no"]}, budget_seconds=BUDGET)
    assert "KeyError" in answers["wrong"].reason
    answers = run_jobs({"bytes": lambda _c, _d: b"not for JSON"}, budget_seconds=BUDGET)
    assert "TypeError" in answers["bytes"].reason


def test_place(nothing_left: None) -> None:
    """A namespace with nothing but a loopback that is up, a cgroup of its own, no way out."""

    def look(cgroup: Path, _deadline: float) -> list[Any]:
        with socket.socket() as sock:
            sock.settimeout(1)
            code = sock.connect_ex(("192.0.2.1", 80))
        inside = str(os.getpid()) in (cgroup / "cgroup.procs").read_text().split()
        links = [name for _index, name in socket.if_nameindex()]
        return [links, inside, os.strerror(code), str(Path("/proc/self/ns/net").readlink())]

    answer = run_jobs({"a": look}, budget_seconds=BUDGET)["a"]
    assert isinstance(answer, list), answer
    links, inside, error, namespace = answer
    assert "lo" in links
    assert not [name for name in links if name.startswith(("eth", "en", "wl"))]
    assert inside
    assert error == "Network is unreachable"
    assert namespace != str(Path("/proc/self/ns/net").readlink())


_PROBE = """
import sys, time
from runtime.probe.sandbox import run_jobs
def hang(cgroup, deadline):
    print("in", flush=True)
    time.sleep(3600)
run_jobs({"hang": hang}, budget_seconds=3600)
"""


def _descendants(pid: int) -> set[int]:
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return set()
    return {int(child) for child in below}.union(*(_descendants(int(child)) for child in below))


@contextmanager
def _probing(checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of its battery."""
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    argv = [sys.executable, "-c", _PROBE]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
    ) as probe:
        try:
            assert probe.stdout
            assert probe.stdout.readline() == "in\n"
            yield probe
        finally:
            probe.kill()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _place_of(pid: int) -> str:
    (found,) = [str(place) for place in places() if f"kmesh-probe-{pid}-" in str(place)]
    return found


def test_sigkill_leaves_nothing_that_the_next_run_does_not_remove(
    checkout: Path, nothing_left: None
) -> None:
    with _probing(checkout) as probe:
        place = _place_of(probe.pid)
        below = _descendants(probe.pid)
        assert len(below) == 2  # the supervisor and the check
        probe.kill()
        probe.wait()
        _until(lambda: not any(start_time(pid) for pid in below))
    assert Path(place).is_dir(), "nothing to clean up: the test tests nothing"
    assert run_jobs({"quick": _quick}, budget_seconds=BUDGET) == {"quick": 42}
    assert not Path(place).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interruption_leaves_no_process(
    checkout: Path, number: signal.Signals, nothing_left: None
) -> None:
    with _probing(checkout) as probe:
        place = _place_of(probe.pid)
        below = _descendants(probe.pid)
        probe.send_signal(number)
        probe.wait()
        _until(lambda: not any(start_time(pid) for pid in below))
        if number == signal.SIGINT:  # Python unwinds: the place is gone at once
            assert not Path(place).exists()
    for root in cgroup2_mounts():
        remove_leftovers(root)
    assert not Path(place).exists()


def test_a_living_owners_place_stays(checkout: Path, nothing_left: None) -> None:
    with _probing(checkout) as probe:
        place = Path(_place_of(probe.pid))
        run_jobs({"quick": _quick}, budget_seconds=BUDGET)
        assert place.is_dir()
        assert start_time(probe.pid), "it must live on"
        probe.send_signal(signal.SIGINT)
        probe.wait()


def test_leftovers_are_told_by_pid_and_start_time(tmp_path: Path) -> None:
    pid, started = os.getpid(), start_time(os.getpid())
    assert started
    mine, reused = f"kmesh-probe-{pid}-{started}", f"kmesh-probe-{pid}-{started - 1}"
    dead, strange = "kmesh-probe-4194304-1", "kmesh-probe-notes"
    for name in (mine, reused, dead, strange):
        (tmp_path / name / "sockops").mkdir(parents=True)
    assert set(remove_leftovers(tmp_path)) == {reused, dead}
    assert {path.name for path in tmp_path.iterdir()} == {mine, strange}
