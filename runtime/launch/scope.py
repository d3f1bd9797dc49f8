# SPDX-License-Identifier: Apache-2.0
"""A control group for one command, made by `kmesh exec` and gone with it.

While the command runs, its cgroup is locked (flock on the directory): a scope that is neither
locked nor populated belonged to a `kmesh exec` that was killed, and may be removed.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from runtime.errors import KmeshError

_PARENT = "kmesh"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")


class Scope:
    """One command's cgroup, `<root>/kmesh/<name>-<pid>`.

    Args:
        root: the root of the cgroup2 hierarchy.
        name: what to call it.

    Raises:
        KmeshError: the name will not do, or the cgroup cannot be made.
    """

    def __init__(self, root: Path, *, name: str) -> None:
        if not _NAME.fullmatch(name):
            hint = "letters, digits, dots, dashes and underscores"
            raise KmeshError(f"{name!r} cannot be a workload's name", hint=hint)
        self.path = root / _PARENT / f"{name}-{os.getpid()}"
        try:
            self.path.mkdir(parents=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise KmeshError(
                f"cannot make the control group {self.path}: {error.strerror}",
                hint="run as root; in a container, /sys/fs/cgroup must be writable",
            ) from error

    def procs_descriptor(self) -> int:
        """A descriptor of cgroup.procs: a process that writes "0" to it moves in."""
        return os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def remove(self) -> list[int]:
        """Remove it, unless processes are in it still: those are returned."""
        left = everyone(self.path)
        if not left:
            remove(self.path)
        os.close(self._lock)
        return left


def processes(cgroup: Path) -> list[int]:
    """The processes of a cgroup; none when it is gone."""
    try:
        return [int(line) for line in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def everyone(cgroup: Path) -> list[int]:
    """The processes of a cgroup and of those below it, as far as they can be seen from here."""
    return [pid for one in (cgroup, *_below(cgroup)) for pid in processes(one) if pid]


def _below(cgroup: Path) -> list[Path]:
    """The cgroups that processes of a cgroup have made below it, the innermost first."""
    try:
        found = [path.parent for path in cgroup.rglob("*/cgroup.procs")]
    except OSError:  # it went meanwhile
        return []
    return sorted(found, key=lambda path: -len(path.parts))


def remove(cgroup: Path) -> bool:
    """Remove an empty cgroup with those below it, and the parent of all when it was the last."""
    try:
        for below in _below(cgroup):
            below.rmdir()
        cgroup.rmdir()
    except FileNotFoundError:
        return False
    with suppress(OSError):  # others run
        cgroup.parent.rmdir()
    return True


def is_scope(cgroup: Path) -> bool:
    """Whether it is where scopes are."""
    return cgroup.parent.name == _PARENT


def is_abandoned(cgroup: Path, *, empty: bool = False) -> bool:
    """Whether a scope is there whose `kmesh exec` is no more, with no processes left if `empty`.

    A cgroup that `kmesh exec` did not make is never that: others may enroll any.
    """
    if not is_scope(cgroup):
        return False
    try:
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return not (empty and everyone(cgroup))
    finally:
        os.close(descriptor)


def dissolve(cgroup: Path) -> bool:
    """Remove a scope for good: processes that it still has go back to the hierarchy's root.

    Raises:
        KmeshError: it is no scope of ours, or it cannot be emptied.
    """
    if not is_scope(cgroup):
        raise KmeshError(f"{cgroup} is no control group of kmesh exec")
    outside = cgroup.parent.parent / "cgroup.procs"
    try:
        for pid in everyone(cgroup):
            with suppress(ProcessLookupError):
                outside.write_text(str(pid))
        return remove(cgroup)
    except OSError as error:
        raise KmeshError(f"cannot remove the control group {cgroup}: {error.strerror}") from error
