# SPDX-License-Identifier: Apache-2.0
"""Compiling the objects on the host, when no prebuilt object loads and a compiler is there.

It is done as the compile image does it, from the best that the host offers, in processes of their own,
which are bounded in time and in memory and end with this one's patience. What came of it is kept under
the key of the verdict: another kernel, another set of sources, other rights, and it is done again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import log
from runtime.errors import KmeshError
from runtime.objects.locate import sources_dir
from runtime.probe.cache import cache_key, objects_digest
from runtime.probe.facts import Facts
from runtime.version import package_version

SECONDS = 120.0
MEGABYTES = 2048
_KEY_LENGTH = 16
_TAIL_LINES = 15
_LIMITED = 'ulimit -v "$0" && exec "$@"'  # KiB of address space, for it and all that it starts

_log = log.get("launch.compile")


@dataclass(frozen=True, slots=True)
class Compiled:
    """Objects compiled here; `summary` says from what, where and how long it took."""

    objects: Path
    summary: str


def impossible() -> str | None:
    """Why nothing can be compiled here, or None when it can be tried."""
    if shutil.which("clang") is None:
        return "no clang here (the generic image carries one)"
    try:
        sources_dir()
    except KmeshError as error:
        return str(error)
    return None


def compile_here(target: Path, *, facts: Facts) -> Compiled:
    """Compile all objects for the running kernel.

    Args:
        target: the directory to put them in, under the key of the verdict; what is unchanged there is
            not compiled again, and what has another key is removed.
        facts: of this kernel and process.

    Raises:
        KmeshError: it did not work, or not in time.
    """
    sources, began = sources_dir(), time.monotonic()
    btf = Path(facts.btf_source) if facts.btf_source else None
    place = target / _key(facts, sources, btf)
    _forget_others(target, but=place.name)
    _log.info("compiling %s into %s (at most %.0f s)", sources, place, SECONDS)
    command = [
        *([sys.executable, "-m", "runtime.compile", str(sources), str(place)]),
        *("--fit", facts.release, *(("--btf", str(btf)) if btf else ())),
    ]
    told = json.loads(_bounded(command, seconds=SECONDS))
    seconds = time.monotonic() - began
    numbers = told["renumbered_helpers"]
    moved = f", {len(numbers)} helpers renumbered" if numbers else ""
    kept = f"{told['unchanged']} kept" if told["unchanged"] else f"{told['compiled']} compiled"
    by = f"by {told['evidence']} ({told['where']}){moved}"
    return Compiled(place, f"from {sources} into {place} {by}, {kept}, in {seconds:.1f} s")


def _key(facts: Facts, sources: Path, btf: Path | None) -> str:
    found = objects_digest(path for path in sources.rglob("*.[ch]"))
    return cache_key(facts, btf=btf, objects=found, version=package_version())[:_KEY_LENGTH]


def _forget_others(target: Path, *, but: str) -> None:
    for path in target.iterdir() if target.is_dir() else ():
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)


def _bounded(command: Sequence[str], *, seconds: float) -> str:
    """Run a command with a limit of time, and of memory for each of its processes; its output.

    Raises:
        KmeshError: it failed, or was ended.
    """
    child = _Child(["sh", "-c", _LIMITED, str(MEGABYTES << 10), *command])
    try:
        process = child.start()
        out, said = process.communicate(timeout=seconds)
    except BaseException as error:
        child.end()
        if isinstance(error, subprocess.TimeoutExpired):
            raise KmeshError(f"compiling took longer than {seconds:.0f} s") from error
        raise
    if process.returncode != 0:
        tail = "\n".join(said.strip().splitlines()[-_TAIL_LINES:])
        raise KmeshError(f"compiling failed with status {process.returncode}: {tail}")
    return out


class _Child:
    """A process that can be ended at any moment of its start.

    A signal's exception is raised in the main thread alone: in Popen it would lose the child, so another
    thread spawns it. The exception may come before that thread runs, too: then it spawns nothing any more.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._spawning = threading.Lock()
        self._is_over = False
        self._process: subprocess.Popen[str] | None = None
        self._failed: OSError | None = None

    def start(self) -> subprocess.Popen[str]:
        """Start it.

        Raises:
            KmeshError: that is not possible.
        """
        spawner = threading.Thread(target=self._spawn)
        spawner.start()
        spawner.join()
        if self._process is None:
            raise KmeshError(f"compiling cannot be started: {self._failed}")
        return self._process

    def _spawn(self) -> None:
        with self._spawning:
            if not self._is_over:
                try:
                    self._process = _spawn(self._command)
                except OSError as error:
                    self._failed = error

    def end(self) -> None:
        """End it, whether it was started, is being started or never was."""
        with self._spawning:
            self._is_over = True
        if self._process is not None:
            _end(self._process)


def _spawn(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its compilers are ended with it
    )


def _end(process: subprocess.Popen[Any]) -> None:
    """End a process and all that it started, and wait until its output is closed: until all are gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's, with this very package on the path, wherever it was imported from."""
    package = str(Path(__file__).resolve().parents[2])
    rest = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": f"{package}:{rest}" if rest else package}
