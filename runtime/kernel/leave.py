# SPDX-License-Identifier: Apache-2.0
"""Having a process outlive the container that it was started in.

A container's runtime ends, with the container, everything in the container's control groups, of version 1 and of
version 2; also what has left the session, or is in the host's process namespace. (Seen with containerd and runc: of
two processes of a pod that was deleted, the one in version 1's groups was ended.)
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime import log
from runtime.kernel.cgroup import CgroupError
from runtime.kernel.mounts import Mount, mounts

_CLONE_NEWCGROUP = 0x02000000
_INIT = Path("/proc/1/ns/cgroup")

_log = log.get("leave")


def leave_container(pid: int, into: Path) -> None:
    """Move a process into a control group of version 2, and to the top of every hierarchy of version 1.

    Args:
        pid: the process.
        into: the control group, of the host's hierarchy.

    Raises:
        CgroupError: it cannot be moved there.
    """
    move(pid, into)
    leave_version_1(pid)


def move(pid: int, into: Path) -> None:
    """Move a process into a control group of version 2, also out of a container to which groups are delegated.

    Raises:
        CgroupError: it cannot be moved there.
    """
    try:
        _move(pid, into)
    except OSError as error:
        delegated = error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM)
        hint = (
            "where control groups are delegated (nsdelegate), the host's namespace of control groups is "
            "needed, which takes hostPID and SYS_PTRACE (the chart's extraCapabilities)"
        )
        raise CgroupError(
            f"process {pid} cannot be moved to {into}: {error.strerror}",
            hint=hint if delegated else None,
        ) from error


def leave_version_1(pid: int) -> None:
    """Move a process to the top of every hierarchy of version 1; where it cannot be, it ends with its container."""
    for top in _tops_of_version_1(pid):
        try:
            _write(pid, top)
        except OSError as error:
            _log.warning(
                "process %d ends with the container that it is in: it cannot be moved to %s (%s)",
                pid, top, error.strerror,
            )  # fmt: skip


def _tops_of_version_1(pid: int) -> Iterator[Path]:
    """The top of each version 1 hierarchy in which a process is elsewhere, where it is mounted here."""
    there = [each for each in mounts() if each.type == "cgroup" and each.root == "/"]
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, where = line.split(":", 2)
        top = _mount_of(controllers, there) if controllers and where != "/" else None
        if top is not None:
            yield top.point


def _mount_of(controllers: str, there: list[Mount]) -> Mount | None:
    """The mount of the hierarchy with these controllers ("cpu,cpuacct", "name=systemd"); the last hides others."""
    wanted = set(controllers.split(","))
    return next((each for each in reversed(there) if wanted <= each.options), None)


def _move(pid: int, cgroup: Path) -> None:
    """From here, or as from the host where a boundary of delegation lies between (cgroups(7))."""
    try:
        _write(pid, cgroup)
    except OSError as error:
        if error.errno != errno.ENOENT or not (cgroup / "cgroup.procs").exists():
            raise
        with ThreadPoolExecutor(max_workers=1) as pool:
            pool.submit(_write_from_host, pid, cgroup).result()


def _write(pid: int, cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(pid), encoding="ascii")


def _write_from_host(pid: int, cgroup: Path) -> None:
    """Runs in a thread of its own, which stays in the host's namespace of control groups."""
    handle = os.open(_INIT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, _CLONE_NEWCGROUP) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        _write(pid, cgroup)
    finally:
        os.close(handle)
