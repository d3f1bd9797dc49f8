# SPDX-License-Identifier: Apache-2.0
"""Losing a privilege reads denied, never absent; and cgroup v2 is found, or made to be there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.probe.behaviour.battery_support import BUDGET

pytestmark = pytest.mark.root

InPython = Callable[..., subprocess.CompletedProcess[str]]

_BATTERY = """
import json
from pathlib import Path
from runtime.probe import scratch
from runtime.probe.behaviour import run_battery
{before}
found = run_battery(Path({objects!r}), budget_seconds={budget})
print(json.dumps({{item.capability: [item.verdict, item.evidence[-1].summary, item.remedy]
                  for item in found}}))
"""


@pytest.fixture
def battery(probes: Path, in_python: InPython) -> Callable[..., dict[str, list[str]]]:
    def run(*prefix: str, before: str = "") -> dict[str, list[str]]:
        code = _BATTERY.format(objects=str(probes), budget=BUDGET, before=before)
        done = in_python(code, *prefix)
        assert done.returncode == 0, done.stderr
        found: dict[str, list[str]] = json.loads(done.stdout)
        return found

    return run


Battery = Callable[..., dict[str, list[str]]]


@pytest.mark.parametrize(
    ("dropped", "missing"),
    [
        ("-sys_admin", "CAP_SYS_ADMIN"),
        ("-net_admin", "CAP_NET_ADMIN"),
        ("-sys_admin,-bpf,-perfmon,-net_admin", "CAP_BPF"),
    ],
)
def test_dropped_capabilities(
    battery: Battery, dropped: str, missing: str, nothing_left: None
) -> None:
    found = battery("setpriv", f"--bounding-set={dropped}")
    assert {verdict for verdict, _summary, _remedy in found.values()} == {"denied"}
    assert all(missing in summary for _verdict, summary, _remedy in found.values())
    assert all("CAP_" in remedy for _verdict, _summary, remedy in found.values())


def test_bpf_refused_once_the_place_is_made(battery: Battery, nothing_left: None) -> None:
    """The privileges for BPF alone are gone: the kernel refuses the load, with EPERM or with words."""
    before = """
import os
from runtime.probe.behaviour import bench
_load = bench.Bench.load
def without(self, *args, **kwargs):
    import ctypes
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capset(head, data) == 0
    return _load(self, *args, **kwargs)
bench.Bench.load = without
"""
    found = battery(before=before)
    assert {verdict for verdict, _summary, _remedy in found.values()} == {"denied"}
    assert all("CAP_NET_ADMIN" in summary for _verdict, summary, _remedy in found.values())


_ALL = ("unshare", "--mount", "sh", "-c")


def test_cgroup2_not_mounted(battery: Battery, nothing_left: None) -> None:
    """It is mounted for the battery alone."""
    unmount = "awk '/ - cgroup2 /{print $5}' /proc/self/mountinfo | xargs -r -n1 umount -l"
    found = battery(*_ALL, f'{unmount}; exec "$@"', "sh")
    assert found["connect.ipv4"][0] == "present"
    assert found["http.exchange"][0] == "present"


def test_cgroup2_read_only(battery: Battery, nothing_left: None) -> None:
    """As containers see it."""
    remount = (
        "awk '/ - cgroup2 /{print $5}' /proc/self/mountinfo | xargs -r -n1 mount -o remount,bind,ro"
    )
    found = battery(*_ALL, f'{remount}; exec "$@"', "sh")
    assert found["connect.ipv4"][0] == "present"


def test_kernel_without_cgroup2(battery: Battery, nothing_left: None) -> None:
    """The kernel's own answer to a file system that it does not have."""
    before = "scratch.cgroup2_mounts = lambda: []; scratch._CGROUP2 = b'nosuchfs'"
    found = battery(before=before)
    assert {verdict for verdict, _summary, _remedy in found.values()} == {"absent"}
    assert all("cgroup2" in summary for _verdict, summary, _remedy in found.values())
