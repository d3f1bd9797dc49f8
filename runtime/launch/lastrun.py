# SPDX-License-Identifier: Apache-2.0
"""What ran on this node before, so that a new kernel, and a mode that changed, are said aloud.

A node's kernel is updated by a reboot, after which all that a daemon knows of the time before is on
disk. That is remembered and compared, and never believed: the kernel is probed anew (the key of kept
findings has the kernel's build in it), and pins and cgroups are gone with the kernel that they were
part of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime import log
from runtime.control.rundir import State, boot_id

STATE_DIR = Path("/var/lib/kmesh")
_FILE = "last-run.json"

_log = log.get("launch")


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """A run of the daemon: the path that served, the kernel's release and build, and its boot."""

    mode: str
    release: str
    build: str = ""
    boot: str = ""

    @classmethod
    def now(cls, mode: str, *, build: str) -> LastRun:
        """The run that is under way here."""
        return cls(mode=mode, release=os.uname().release, build=build, boot=boot_id())


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What differs from the run before."""

    before: LastRun
    now: LastRun

    @property
    def rebooted(self) -> bool:
        return self.before.boot != self.now.boot

    @property
    def kernel(self) -> bool:
        if self.before.build and self.now.build:
            return self.before.build != self.now.build
        return self.before.release != self.now.release

    @property
    def mode(self) -> bool:
        return self.before.mode != self.now.mode

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.before.mode,
            "release": self.before.release,
            "rebooted": self.rebooted,
            "kernel_changed": self.kernel,
            "mode_changed": self.mode,
        }


def default_state_dir() -> Path:
    """KMESH_STATE_DIR, else /var/lib/kmesh."""
    return Path(os.environ.get("KMESH_STATE_DIR") or STATE_DIR)


def recall(directory: Path, *, note: State | None) -> LastRun | None:
    """The run before this one: from the state directory, else from the note of a killed daemon."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        found = LastRun(**json.loads((directory / _FILE).read_text()))
        if all(isinstance(value, str) for value in asdict(found).values()):
            return found
    if note is None or not note.release:
        return None
    return LastRun(mode=note.mode, release=note.release, boot=note.boot)


def remember(directory: Path, run: LastRun) -> None:
    """Write a run down, whole or not at all; only where whoever installed Kmesh made the directory."""
    draft = directory / f".{_FILE}.{os.getpid()}"
    with suppress(OSError):
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(run), file)
        draft.replace(directory / _FILE)


def compare(before: LastRun | None, now: LastRun, *, reasons: Sequence[str] = ()) -> Change | None:
    """Say aloud what has changed since the run before; None where there was none.

    Args:
        before: that run.
        now: this one.
        reasons: why its mode is no better one.
    """
    if before is None:
        return None
    change = Change(before=before, now=now)
    if change.kernel:
        _log.warning(
            "NEW KERNEL: the last run was on %s, this is %s: probed anew, nothing kept is believed",
            before.release,
            now.release,
        )
    if change.mode:
        because = f" ({'; '.join(reasons)})" if reasons else ""
        _log.warning(
            "MODE CHANGED since the last run: %s, now %s%s", before.mode, now.mode, because
        )
    return change
