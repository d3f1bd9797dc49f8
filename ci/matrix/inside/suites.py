# SPDX-License-Identifier: Apache-2.0
"""Running the tests of the data plane in the booted kernel, and counting what came of them."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET  # our own file
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_JUNIT = Path("/tmp/junit.xml")  # noqa: S108 - the guest is ours
_SECONDS_A_TEST = 400  # emulated, a kernel is ten times slower
_TAIL = 6000


def run_tests(words: Sequence[str]) -> dict[str, Any]:
    """Run the tests of a data path.

    Args:
        words: the path's name, then what pytest is to run.

    Returns:
        how many passed, why others were skipped (reason: number), and those that failed, with
        pytest's last words where any did.
    """
    _JUNIT.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--timeout", str(_SECONDS_A_TEST), f"--junitxml={_JUNIT}", *words[1:]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    text = _JUNIT.read_text() if _JUNIT.exists() else ""
    counted = count(text, status=done.returncode, output=done.stdout + done.stderr)
    return {"path": words[0], **counted}


def count(junit: str, *, status: int, output: str) -> dict[str, Any]:
    """The outcome, from the XML that pytest wrote ("" when it did not come to that)."""
    cases = ET.fromstring(junit).iter("testcase") if junit else ()  # noqa: S314 - our own
    passed, skipped, failed = 0, Counter[str](), []
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif (skip := case.find("skipped")) is not None:
            skipped[skip.get("message") or "no reason given"] += 1
        else:
            passed += 1
    good = status == 0 and passed and not failed
    return {
        "passed": passed,
        "skipped": dict(skipped),
        "failed": failed if failed or good else [f"pytest ended with status {status}"],
        "tail": "" if good else output[-_TAIL:],
    }
