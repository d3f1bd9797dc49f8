# SPDX-License-Identifier: Apache-2.0
"""Compiling at start-up: bounded, ended with all that it started, kept under the verdict's key."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import KmeshError
from runtime.launch import online
from runtime.probe.facts import Facts, running_facts

# Writes its own pid and that of a grandchild, which outlives it unless somebody sees to that.
_FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_go(pids: Path) -> bool:
    """Whether processes end; one that was killed is there for a moment after its output was closed."""
    until = time.monotonic() + 30
    left = [int(pid) for pid in pids.read_text().split()]
    while (left := [pid for pid in left if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.01)
    return not left


def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    for seconds in (5, 25, 125):
        with pytest.raises(KmeshError, match="took longer"):
            online._bounded([sys.executable, "-c", _FAMILY, str(pids)], seconds=seconds)
        if pids.exists():
            break  # else the machine was too slow for this to say anything
    assert all_go(pids)


def test_what_is_broken_off_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def interrupt() -> None:
        while not pids.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        online._bounded([sys.executable, "-c", _FAMILY, str(pids)], seconds=60)
    assert all_go(pids)


@pytest.mark.parametrize("is_started", [False, True])
def test_what_is_broken_off_while_it_starts_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_started: bool
) -> None:
    """A signal may come at any moment of a thread's start: before there is one, and before it says so."""
    made = tmp_path / "made"
    spawned: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    start, spawn = threading.Thread.start, online._spawn

    def run_late(thread: threading.Thread) -> None:
        time.sleep(0.2)
        thread.run()

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        if is_started:
            # As it is while a thread has been made that has not run yet.
            monkeypatch.setattr(threading.Thread, "start", start)
            late = threading.Thread(target=run_late, args=(thread,))
            threads[:] = [late]
            late.start()
        raise KeyboardInterrupt

    def recorded(command: Sequence[str]) -> subprocess.Popen[str]:
        spawned.append(spawn(command))
        return spawned[-1]

    monkeypatch.setattr(online, "_spawn", recorded)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        online._bounded(["sh", "-c", f"touch {made}; sleep 60"], seconds=60)
    if is_started:
        threads[0].join()
    left = [one.pid for one in spawned if alive(one.pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_what_cannot_be_started_says_so() -> None:
    with pytest.raises(KmeshError, match=r"cannot be started: .*nowhere"):
        online._Child(["/nowhere"]).start()
    with pytest.raises(KmeshError, match=r"status 127: .*nowhere"):
        online._bounded(["/nowhere"], seconds=60)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "MEGABYTES", 512)
    grab = "x = bytearray(1 << 30)"
    with pytest.raises(KmeshError, match="MemoryError"):
        online._bounded([sys.executable, "-c", grab], seconds=60)


def test_a_failure_has_the_last_words(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match=r"status 3: (?s:.)*no such header"):
        online._bounded(["sh", "-c", "echo no such header >&2; exit 3"], seconds=60)


@pytest.fixture
def facts() -> Facts:
    return running_facts()


@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
def test_a_second_time_nothing_is_compiled_and_another_key_forgets(
    tmp_path: Path, checkout: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(checkout / "bpf/include", sources / "include")
    (sources / "one").mkdir()
    source = sources / "one/x.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    monkeypatch.setenv("KMESH_BPF_SOURCES", str(sources))
    first = online.compile_here(tmp_path / "made", facts=facts)
    assert "1 compiled" in first.summary
    assert (first.objects / "one/x.bpf.o").is_file()
    again = online.compile_here(tmp_path / "made", facts=facts)
    assert again.objects == first.objects
    assert "1 kept" in again.summary
    other = online.compile_here(tmp_path / "made", facts=replace(facts, build_id="aa"))
    assert other.objects != first.objects
    assert not first.objects.exists()
    source.write_text(source.read_text() + "int x;\n")
    changed = online.compile_here(tmp_path / "made", facts=facts)
    assert changed.objects != first.objects


@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
def test_what_it_was_made_from_is_told(
    tmp_path: Path, facts: Facts, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KMESH_BPF_SOURCES", str(checkout / "bpf"))
    done = online.compile_here(tmp_path / "made", facts=facts)
    assert f"by {'btf' if facts.btf_source else ''}" in done.summary
    manifest = done.objects / "manifest.json"
    assert manifest.is_file()
    listed = subprocess.run(["ls", str(done.objects)], capture_output=True, text=True, check=True)
    assert "compat" in listed.stdout
