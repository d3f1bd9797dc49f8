# SPDX-License-Identifier: Apache-2.0
"""Removing what a daemon left that could not end by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.cni.install import remove as remove_plugin
from runtime.control.rundir import RunDir, State
from runtime.enrol.node import remove_features
from runtime.errors import KmeshError
from runtime.kernel.cleanup import cleanup as clean_kernel
from runtime.launch.http import clear as clear_gate
from runtime.launch.scope import dissolve, is_scope
from runtime.launch.waypoint import clear as clear_waypoint

_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaner:
    """What is to be removed from one node.

    Attributes:
        run_dir: the daemon's run directory.
        pins: where it pinned.
        nfd_features: features.d of Node Feature Discovery; None where nothing was written there.
        cni_bin, cni_conf: the host's directories of the CNI; None where the plugin is none of ours to remove.
    """

    run_dir: Path
    pins: Path
    cni_bin: Path | None = None
    cni_conf: Path | None = None
    nfd_features: Path | None = None

    def clean(self) -> list[str]:
        """Remove everything; what was removed, in words.

        Raises:
            KmeshError: a daemon runs there, or something cannot be removed.
        """
        removed = clean(run_dir=self.run_dir, pins=self.pins)
        if self.cni_bin and self.cni_conf:
            removed += remove_plugin(bin_dir=self.cni_bin, conf_dir=self.cni_conf)
        if self.nfd_features:
            removed += remove_features(self.nfd_features)
        return removed

    def stay(self, done_file: Path | None, *, say: Callable[[str], object]) -> None:
        """Clean whenever no daemon runs, until SIGTERM; a daemon that comes back is waited for.

        Args:
            done_file: is there while everything is clean.
            say: told of everything that was removed, and of what is waited for.
        """
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        told = ""
        while not ended.is_set():
            try:
                for item in self.clean():
                    say(f"removed {item}")
                now = "everything is clean"
                if done_file:
                    done_file.touch()
            except KmeshError as error:
                now = str(error)
                if done_file:
                    done_file.unlink(missing_ok=True)
            if now != told:
                say(now)
                told = now
            ended.wait(_AGAIN_SECONDS)


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
    before = _there(run_dir)
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
        removed += clear_waypoint(run_dir)
        removed += clear_gate(run_dir)
    except BaseException:
        directory.unlock()
        raise
    files = directory.clear()
    return [*removed, *(file for file in files if file in before)]


def _there(run_dir: Path) -> set[str]:
    """The run directory and what is in it: the lock that cleaning takes was not there before."""
    if not run_dir.is_dir():
        return set()
    return {str(run_dir), *map(str, run_dir.iterdir())}
