# SPDX-License-Identifier: Apache-2.0
"""The oldest and the newest known kernel, booted: what the prober says there is what works there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ci.kernels.debian import Kernel, fetch, wanted
from ci.matrix.boot import Outcome, boot
from runtime.probe.run import probe_offline

KERNELS = [wanted()[0], wanted()[-1]]
EVIDENCE = Path(__file__).parents[2] / "builder/data/kernels"
# Emulated, a kernel is ten times slower; the guest's own time limits leave room for that.
COMMAND = """
python3 -m runtime.cli.main probe --output json --no-cache && echo ===
python3 -m pytest -q -p no:cacheprovider --timeout 900 \
    tests/dataplane/test_dataplane_connect.py tests/kernel 2>&1 | tail -60
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86_64 (qemu-system-x86)"
    ),
]


@pytest.fixture(scope="module", params=KERNELS, ids=lambda kernel: kernel.suite)
def kernel(request: pytest.FixtureRequest, objects: Path) -> Kernel:
    [fetched] = fetch([request.param])
    return fetched


@pytest.fixture(scope="module")
def outcome(kernel: Kernel) -> Outcome:
    return boot(kernel, COMMAND, timeout=1400)


@pytest.fixture(scope="module")
def report(outcome: Outcome) -> dict[str, Any]:
    text, _, _ = outcome.output.partition("\n===")
    return dict(json.loads(text))


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {finding["capability"]: finding["verdict"] for finding in report["findings"]}


def test_the_shipped_objects_load(report: dict[str, Any]) -> None:
    loads = {name: found for name, found in verdicts(report).items() if name.startswith("load.")}
    assert loads
    assert set(loads.values()) == {"present"}


def test_the_compat_path_is_chosen_on_behaviour(report: dict[str, Any]) -> None:
    found = verdicts(report)
    assert report["mode"]["mode"] == "compat"
    assert {found["connect.ipv4"], found["connect.ipv6"]} == {"present"}
    assert not report["offline"]


def test_nothing_is_denied_to_root(report: dict[str, Any]) -> None:
    assert [name for name, found in verdicts(report).items() if found == "denied"] == []


def test_the_data_path_works_there(outcome: Outcome) -> None:
    closing = outcome.output.strip().splitlines()[-1]
    assert re.search(r"\d+ passed", closing), outcome.output[-6000:]
    assert "failed" not in closing, outcome.output[-6000:]
    assert "error" not in closing, outcome.output[-6000:]


def test_offline_evidence_agrees_with_the_live_kernel(
    kernel: Kernel, report: dict[str, Any], objects: Path
) -> None:
    evidence = EVIDENCE / f"{kernel.release}.btf"
    if not evidence.exists():
        pytest.skip(f"the suite has moved on to {kernel.release}: run python -m ci.kernels")
    offline = probe_offline(
        btf=evidence,
        config=evidence.with_suffix(".config"),
        release=kernel.release,
        objects=objects,
    )
    live = verdicts(report)
    decided = {
        finding.capability: str(finding.verdict)
        for finding in offline.findings
        if finding.verdict in ("present", "absent") and finding.capability in live
    }
    assert len(decided) > 10
    assert {name: live[name] for name in decided} == decided
