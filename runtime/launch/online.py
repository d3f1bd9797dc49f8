# SPDX-License-Identifier: Apache-2.0
"""Compiling the objects on the host, when no prebuilt object loads and a compiler is there.

It runs in a process of its own: bounded in time, and in memory.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from runtime import log
from runtime.errors import KmeshError
from runtime.objects.locate import sources_dir
from runtime.process import run

SECONDS = 120
MEGABYTES = 2048

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


def compile_here(target: Path) -> Compiled:
    """Compile all objects.

    Args:
        target: the directory to put them in; what is unchanged there is not compiled again.

    Raises:
        KmeshError: it did not work, or not in time.
    """
    sources, began = sources_dir(), time.monotonic()
    _log.info("compiling %s into %s (at most %d s)", sources, target, SECONDS)
    limited = ["prlimit", f"--as={MEGABYTES << 20}", "--"] if shutil.which("prlimit") else []
    command = [*limited, sys.executable, "-m", "runtime.compile", str(sources), str(target)]
    run(command, env=_environment(), timeout=SECONDS)
    seconds = time.monotonic() - began
    return Compiled(target, f"from {sources} into {target}, in {seconds:.1f} s")


def _environment() -> dict[str, str]:
    """This process's, with this very package on the path, wherever it was imported from."""
    package = str(Path(__file__).resolve().parents[2])
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{package}:{rest}" if rest else package}
