# SPDX-License-Identifier: Apache-2.0
"""A command run by `kmesh exec` behaves as if it had been started directly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.launch.child import CannotStartError, run_in_cgroup


@pytest.fixture
def procs(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "cgroup.procs", os.O_WRONLY | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_the_exit_status_is_handed_on(procs: int, script: str, status: int) -> None:
    assert run_in_cgroup(["sh", "-c", script], procs=procs) == status


def test_the_command_enters_the_cgroup_before_it_runs(procs: int, tmp_path: Path) -> None:
    run_in_cgroup(["true"], procs=procs)
    assert (tmp_path / "cgroup.procs").read_bytes() == b"0"


def test_a_cgroup_that_cannot_be_entered_says_from_where_it_can(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    readable = os.open(tmp_path / "cgroup.procs", os.O_RDONLY)
    try:
        with pytest.raises(CannotStartError, match="true cannot enter its cgroup") as caught:
            run_in_cgroup(["true"], procs=readable)
    finally:
        os.close(readable)
    assert "--cgroupns host" in str(caught.value.hint)


def test_a_missing_command_is_127_and_one_that_cannot_run_126(procs: int, tmp_path: Path) -> None:
    with pytest.raises(CannotStartError, match="command not found") as caught:
        run_in_cgroup(["kmesh-no-such-command"], procs=procs)
    assert caught.value.status == 127
    (tmp_path / "text").write_text("x")
    with pytest.raises(CannotStartError, match="cannot run") as caught:
        run_in_cgroup([str(tmp_path / "text")], procs=procs)
    assert caught.value.status == 126


_OUTER = """
import os, sys
from runtime.launch.child import run_in_cgroup
procs = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
sys.exit(run_in_cgroup(["sh", "-c", sys.argv[2]], procs=procs))
"""


_AMONG_THREADS = """
import threading
for _ in range(8):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_the_end_is_noticed_whichever_thread_the_kernel_tells(tmp_path: Path) -> None:
    """SIGCHLD goes to any thread that does not block it, where it is lost."""
    for _ in range(5):
        outer = [sys.executable, "-c", _AMONG_THREADS + _OUTER, str(tmp_path / "procs"), "exit 7"]
        assert subprocess.run(outer, timeout=60, check=False).returncode == 7


def start(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    outer = subprocess.Popen(
        [sys.executable, "-c", _OUTER, str(tmp_path / "procs"), script],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert outer.stdout is not None
    assert outer.stdout.readline() == "up\n"
    return outer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_handed_on(tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 5' {name}; echo up; while :; do sleep 0.05; done"
    outer = start(tmp_path, script)
    outer.send_signal(number)
    out, _ = outer.communicate(timeout=20)
    assert (outer.returncode, out) == (5, f"got {name}\n")


def test_a_command_that_a_signal_ends_is_128_and_the_signal(tmp_path: Path) -> None:
    outer = start(tmp_path, "echo up; exec sleep 60")
    outer.send_signal(signal.SIGTERM)
    assert outer.wait(timeout=20) == 143


def test_a_signal_of_the_terminal_reaches_the_command_once(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole foreground group: it must not be handed on a second time."""
    script = (
        "trap 'echo int' INT; echo up; n=0; while [ $n -lt 20 ]; do sleep 0.05; n=$((n+1)); done"
    )
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", _OUTER, str(tmp_path / "procs"), script])
    seen = b""
    while b"up" not in seen:
        seen += os.read(terminal, 100)
    os.write(terminal, b"\x03")
    while True:
        try:
            seen += os.read(terminal, 100)
        except OSError:  # the other end is closed
            break
    os.waitpid(pid, 0)
    os.close(terminal)
    assert seen.count(b"int") == 1


def test_stopping_and_continuing_do_not_end_it(tmp_path: Path) -> None:
    outer = start(tmp_path, "echo up; sleep 0.3; echo done")
    outer.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    outer.send_signal(signal.SIGCONT)
    out, _ = outer.communicate(timeout=20)
    assert (outer.returncode, out) == (0, "done\n")


def test_a_command_that_cannot_enter_its_cgroup_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "procs").touch()
    with (tmp_path / "procs").open() as read_only, pytest.raises(CannotStartError) as caught:
        run_in_cgroup(["touch", str(tmp_path / "ran")], procs=read_only.fileno())
    assert caught.value.status == 126
    assert not (tmp_path / "ran").exists()
