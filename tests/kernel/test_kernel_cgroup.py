# SPDX-License-Identifier: Apache-2.0
"""Which hierarchy counts, on hosts with version 1, both, or version 2 alone; by their tables of mounts.

Here: how the table is read, and how pods are found in trees as kubelets and runtimes make them. A node with version 2
alone is tried by `make test-cluster-v2`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.enrol.places import PodCgroups
from runtime.kernel import cgroup
from runtime.kernel.cgroup import CgroupError, cgroup2_root, is_hybrid
from runtime.kernel.mounts import mounts

UID = "0f5c1c4e-7e0b-4d51-9a3b-2f6d5a7f9c11"
# As systemd mounts them; {top} stands for /sys/fs/cgroup. The last: the host's tree mounted over the container's own.
UNIFIED = "35 24 0:30 / {top} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
HYBRID = (
    "35 24 0:28 / {top} ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "36 35 0:29 / {top}/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    "37 35 0:30 / {top}/memory rw,nosuid - cgroup cgroup rw,memory\n"
)
VERSION_1 = (
    "35 24 0:28 / {top} ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "37 35 0:30 / {top}/memory rw,nosuid - cgroup cgroup rw,memory\n"
)
IN_A_POD = (
    "90 80 0:30 /../../../.. {top}/own ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
    "91 80 0:30 / {top} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
)
SYSTEMD_POD = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hierarchies of the host that a test describes are."""
    for name in ("unified", "memory", "own"):
        (tmp_path / name).mkdir()
    return tmp_path


def describe(host: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    table = host / "mountinfo"
    table.write_text(text.format(top=host))
    monkeypatch.setattr(cgroup, "mounts", lambda: mounts(table))


@pytest.mark.parametrize(
    ("text", "root", "both"),
    [(UNIFIED, "", False), (HYBRID, "unified", True), (IN_A_POD, "", False)],
)
def test_root_of_version_2(
    host: Path, monkeypatch: pytest.MonkeyPatch, text: str, root: str, *, both: bool
) -> None:
    describe(host, monkeypatch, text)
    assert cgroup2_root() == host / root
    assert is_hybrid() is both
    assert (PodCgroups.of_this_node() is None) is both


def test_host_with_version_1_alone_has_none(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe(host, monkeypatch, VERSION_1)
    with pytest.raises(CgroupError, match="no cgroup2 file system is mounted"):
        cgroup2_root()
    assert PodCgroups.of_this_node() is None


@pytest.mark.parametrize(
    "parts",
    [
        ("cri-containerd-0123.scope", "cri-containerd-4567.scope"),  # containerd, systemd driver
        ("crio-0123.scope", "crio-conmon-0123.scope", "crio-0123.scope/container"),  # CRI-O, crun
        ("crio-0123",),  # CRI-O, cgroupfs
    ],
)
@pytest.mark.parametrize(
    "pod", [SYSTEMD_POD.format(uid=UID.replace("-", "_")), f"kubepods/pod{UID}"]
)
def test_pods_of_a_version_2_node_whatever_the_runtime_puts_below(
    host: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...], pod: str
) -> None:
    describe(host, monkeypatch, UNIFIED)
    for part in parts:
        (host / pod / part).mkdir(parents=True, exist_ok=True)
    (host / "system.slice" / "crio.service").mkdir(parents=True)
    (host / "machine.slice" / f"crio-conmon-{UID}.scope").mkdir(parents=True)
    cgroups = PodCgroups.of_this_node()
    assert cgroups is not None
    assert cgroups.find(UID) == host / pod
