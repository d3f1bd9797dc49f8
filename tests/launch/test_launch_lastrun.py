# SPDX-License-Identifier: Apache-2.0
"""What is remembered of the run before is compared and said aloud, and never believed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from runtime.control.rundir import RunDir, State, boot_id
from runtime.kernel.cgroup import cgroup2_root
from runtime.launch.cleanup import clean
from runtime.launch.lastrun import LastRun, compare, recall, remember

OLD = LastRun(mode="enhanced", release="6.1.0", build="aa", boot="one")
NEW = LastRun(mode="compat", release="6.12.0", build="bb", boot="two")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def test_what_was_remembered_is_recalled(tmp_path: Path) -> None:
    remember(tmp_path, OLD)
    assert recall(tmp_path, note=None) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["last-run.json"]


def test_nothing_is_made_where_no_directory_is(tmp_path: Path) -> None:
    remember(tmp_path / "absent", OLD)
    assert not (tmp_path / "absent").exists()
    assert recall(tmp_path / "absent", note=None) is None


def test_the_note_of_a_killed_daemon_serves_too(tmp_path: Path) -> None:
    note = State(mode="compat", release="6.1.0", boot="one")
    found = recall(tmp_path, note=note)
    assert found == LastRun(mode="compat", release="6.1.0", boot="one")
    assert recall(tmp_path, note=State(mode="compat")) is None  # of a version without them


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mode": 1, "release": "x"}', "[" * 5000])
def test_garbage_is_no_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "last-run.json").write_text(text)
    assert recall(tmp_path, note=None) is None


def test_a_new_kernel_and_another_mode_are_said_aloud(said: pytest.LogCaptureFixture) -> None:
    change = compare(OLD, NEW, reasons=["enhanced: sockops is absent"])
    assert change is not None
    assert change.to_json() == {
        "mode": "enhanced",
        "release": "6.1.0",
        "rebooted": True,
        "kernel_changed": True,
        "mode_changed": True,
    }
    assert "NEW KERNEL: the last run was on 6.1.0, this is 6.12.0" in said.text
    assert "MODE CHANGED since the last run: enhanced, now compat" in said.text
    assert "sockops is absent" in said.text


def test_the_same_again_is_not_worth_a_word(said: pytest.LogCaptureFixture) -> None:
    change = compare(OLD, OLD)
    assert change is not None
    assert [change.rebooted, change.kernel, change.mode] == [False, False, False]
    assert said.text == ""
    assert compare(None, OLD) is None


def test_a_kernel_rebuilt_under_the_same_release_is_another() -> None:
    rebuilt = LastRun(mode="enhanced", release="6.1.0", build="cc", boot="two")
    change = compare(OLD, rebuilt)
    assert change is not None
    assert change.kernel


def test_a_note_knows_its_boot(tmp_path: Path) -> None:
    assert State(boot=boot_id()).of_this_boot
    assert State().of_this_boot  # of a version that did not write it down
    assert not State(boot="another").of_this_boot
    rundir = RunDir(tmp_path)
    rundir.make()
    rundir.write(State(pid=1, boot="b", release="r"))
    assert rundir.read() == State(pid=1, boot="b", release="r")


@pytest.mark.root
def test_cleanup_leaves_cgroups_that_an_old_boot_had(tmp_path: Path, pins: Path) -> None:
    cgroup = cgroup2_root() / "kmesh" / "kmesh-test-others"
    cgroup.mkdir(parents=True)
    try:
        for boot, stays in (("another", True), (boot_id(), False)):
            note = {"pid": 1, "pins": str(pins), "mode": "compat", "cgroups": [str(cgroup)]}
            (tmp_path / "run").mkdir(exist_ok=True)
            (tmp_path / "run/state.json").write_text(json.dumps({**note, "boot": boot}))
            clean(run_dir=tmp_path / "run", pins=pins)
            assert cgroup.exists() == stays
    finally:
        if cgroup.exists():
            cgroup.rmdir()
