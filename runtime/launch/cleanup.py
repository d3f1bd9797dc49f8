# SPDX-License-Identifier: Apache-2.0
"""Removing what a daemon left that could not end by itself."""

from __future__ import annotations

from pathlib import Path

from runtime.control.rundir import RunDir, State
from runtime.kernel.cleanup import cleanup as clean_kernel
from runtime.launch.scope import dissolve, is_scope


def clean(*, run_dir: Path, pins: Path) -> list[str]:
    """Remove pins, attachments, cgroups and files of a daemon that is no more.

    Args:
        run_dir: its run directory.
        pins: where it pinned, unless the run directory says otherwise.

    Returns:
        what was removed, in words.

    Raises:
        KmeshError: a daemon runs there, or something cannot be removed.
    """
    directory = RunDir(run_dir)
    existed = directory.path.is_dir()
    directory.lock()
    state = directory.read() or State(pins=str(pins))
    try:
        removed = clean_kernel(Path(state.pins or pins))
        if state.pins not in ("", str(pins)):
            removed += clean_kernel(pins)
        # A cgroup of that name on another boot is somebody else's, as are those of others.
        noted = state.cgroups if state.of_this_boot else []
        scopes = filter(is_scope, map(Path, noted))
        removed += [str(cgroup) for cgroup in scopes if dissolve(cgroup)]
    except BaseException:
        directory.unlock()
        raise
    files = directory.clear()
    return [*removed, *(files if existed else [])]
