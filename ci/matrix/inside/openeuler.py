# SPDX-License-Identifier: Apache-2.0
"""In a booted kernel: what the prober says without our module and with it, then the tests that need it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ci.matrix.inside.suites import run_tests
from runtime.probe.provider import CAPABILITY, GROUP
from runtime.probe.report import finding_json
from runtime.probe.run import probe

MODULE = Path("/usr/lib/kmesh-module/kmesh_kfuncs.ko")
_OBJECTS = Path("build/all")  # with those that no image carries
_TESTS = "tests/dataplane/test_openeuler_deferred.py"


def run_openeuler() -> dict[str, Any]:
    """Load the module, and drive the programs.

    Raises:
        CalledProcessError: the kernel does not take the module.
    """
    with tempfile.TemporaryDirectory() as name:  # the other objects are judged elsewhere
        shutil.copytree(_OBJECTS / GROUP, Path(name, GROUP))
        before = _judged(Path(name))
        subprocess.run(["insmod", str(MODULE)], check=True)
        after = _judged(Path(name))
    return {"before": before, "after": after, "tests": run_tests([GROUP, _TESTS])}


def _judged(objects: Path) -> dict[str, Any]:
    report = probe(objects=objects, quick=True, cache=False)
    offered, load = report.finding(CAPABILITY), report.finding(f"load.{GROUP}.connect4")
    return {
        "finding": finding_json(offered) if offered else None,
        "provider": report.provider.to_json(),
        "load": str(load.verdict) if load else "not looked at",
        "said": [item.summary for item in load.evidence] if load else [],
    }
