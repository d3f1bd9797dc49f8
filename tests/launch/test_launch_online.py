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


def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(KmeshError, match="took longer"):
        online._bounded([sys.executable, "-c", _FAMILY, str(pids)], seconds=5)
    assert pids.exists(), "the machine was too slow for this test to say anything"
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_what_is_broken_off_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def interrupt() -> None:
        while not pids.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        online._bounded([sys.executable, "-c", _FAMILY, str(pids)], seconds=60)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


@pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit")
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
