# SPDX-License-Identifier: Apache-2.0
"""A process that leaves the control groups of a container, of whatever version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.kernel.cgroup import CgroupError, cgroup2_root
from runtime.kernel.leave import leave_container
from runtime.kernel.mounts import mounts

pytestmark = pytest.mark.root
NAME = f"kmesh-test-leave-{os.getpid()}"
# In a namespace of control groups of its own, as a container is.
INSIDE = """
import os, pathlib, sys
from runtime.kernel import leave
real = leave._write
def refused(pid, cgroup, *, seen=[]):
    if not seen and cgroup.name.endswith("target"):
        seen.append(1)
        raise FileNotFoundError(2, "No such file or directory")  # as a boundary of delegation says
    real(pid, cgroup)
leave._write = refused
leave._INIT = pathlib.Path(f"/proc/{os.getppid()}/ns/cgroup")  # the first process's may be another owner's here
before = os.readlink("/proc/self/ns/cgroup")
leave.leave_container(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
assert os.readlink("/proc/self/ns/cgroup") == before, "the daemon itself stays where it was"
"""


def version_1() -> list[Path]:
    """A hierarchy of version 1 in which a group needs no settings; none on a host without."""
    found = [each for each in mounts() if each.type == "cgroup" and each.root == "/"]
    plain = [each.point for each in found if not each.options & {"cpuset", "memory"}]
    return [point for point in plain if os.access(point, os.W_OK)][:2]


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """Groups like a container's in every hierarchy, and one of version 2 to go to, last."""
    tops = [cgroup2_root(), *version_1()]
    made = [*(top / f"{NAME}-container" for top in tops), cgroup2_root() / f"{NAME}-target"]
    try:
        for path in made:
            path.mkdir()
        yield made
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


@pytest.fixture
def contained(groups: list[Path]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            for path in groups[:-1]:
                (path / "cgroup.procs").write_text(str(process.pid))
            yield process
        finally:
            process.kill()


def members(path: Path) -> list[str]:
    return (path / "cgroup.procs").read_text().split()


def test_process_is_in_no_group_of_the_container_any_more(
    contained: subprocess.Popen[bytes], groups: list[Path]
) -> None:
    *container, target = groups
    pid = str(contained.pid)
    assert all(pid in members(path) for path in container)
    leave_container(contained.pid, target)
    assert not any(pid in members(path) for path in container)
    assert members(target) == [pid]
    assert NAME not in Path(f"/proc/{pid}/cgroup").read_text().replace(target.name, "")


def test_boundary_of_delegation_is_passed_by_the_hosts_namespace(
    contained: subprocess.Popen[bytes], groups: list[Path], checkout: Path
) -> None:
    """The refusal is made up (this host delegates nothing); the way around it is real."""
    target = groups[-1]
    argv = ["unshare", "--cgroup", sys.executable, "-c", INSIDE, str(contained.pid), str(target)]
    subprocess.run(argv, check=True, cwd=checkout)  # unshare becomes it: its parent is this process
    assert members(target) == [str(contained.pid)]


def test_request_is_sent_from_a_group_beyond_a_boundary_of_delegation(
    contained: subprocess.Popen[bytes], groups: list[Path], checkout: Path
) -> None:
    """`kmeshctl explain --send`, asked of a daemon in a container: it moves as what leaves does."""
    target = groups[-1]
    program = INSIDE.replace(
        "leave.leave_container(int(sys.argv[1]), pathlib.Path(sys.argv[2]))",
        "from runtime.launch import http_try\n"
        "http_try._enter(pathlib.Path(sys.argv[2]), int(sys.argv[1]))",
    )
    assert "http_try" in program
    argv = ["unshare", "--cgroup", sys.executable, "-c", program, str(contained.pid), str(target)]
    subprocess.run(argv, check=True, cwd=checkout)
    assert members(target) == [str(contained.pid)]


def test_group_that_is_not_there_is_named(contained: subprocess.Popen[bytes]) -> None:
    nowhere = cgroup2_root() / f"{NAME}-none"
    with pytest.raises(CgroupError, match=f"cannot be moved to {nowhere}"):
        leave_container(contained.pid, nowhere)
