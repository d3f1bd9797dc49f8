# SPDX-License-Identifier: Apache-2.0
"""A node whose kernel is another after its next boot: what one daemon leaves on disk, the next must doubt.

The disk is a directory that the host carries from one boot to the next. The first daemon is killed,
as by a power cut, so that everything that it keeps is there in the state of a moment's notice.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ci.matrix.inside import node, system
from runtime.objects.locate import object_files, objects_dir
from runtime.probe import cache
from runtime.probe.run import probe
from runtime.probe.verdict import Verdict
from runtime.version import package_version

DISK = Path("/var/lib/kmesh-disk")
_RUN_DIR, _STATE_DIR = DISK / "run", DISK / "state"
_REQUESTS = 24  # of two backends, one is left out by chance once in eight million times
_GROUPS = ("compat", "enhanced", "probe")


def first() -> dict[str, Any]:
    """Serve, with the run directory on the disk, and be cut off."""
    _STATE_DIR.mkdir(parents=True)
    told = _serve(ends_with=signal.SIGKILL, enroll=True)
    _keep_a_verdict()
    return told


def _keep_a_verdict() -> None:
    """Have a verdict there that this kernel would believe, also where open questions kept it from being kept."""
    os.environ["KMESH_RUN_DIR"] = str(_RUN_DIR)
    report = probe(objects=objects_dir(), quick=True, cache=False)
    facts = report.facts
    files = [path for group in _GROUPS for path in object_files(objects_dir(), group)]
    key = cache.cache_key(
        facts,
        btf=Path(facts.btf_source) if facts.btf_source else None,
        objects=cache.objects_digest(files),
        version=package_version(),
    )
    if cache.load(key) is None:
        sure = [each for each in report.findings if each.verdict is not Verdict.INCONCLUSIVE]
        assert cache.store(key, sure, taken_at=report.taken_at)
    assert cache.load(key) is not None


def again() -> dict[str, Any]:
    """Start over what lies on the disk, serve, and end in order.

    A cgroup of the name that the old note has is there again, with somebody else's processes.
    """
    found = sorted(path.name for path in _RUN_DIR.iterdir())
    noted = json.loads((_RUN_DIR / "state.json").read_text())["cgroups"]
    for name in noted:
        Path(name).mkdir(parents=True)
    return {"found": found, "noted": noted, **_serve(ends_with=signal.SIGTERM)}


def unable() -> dict[str, Any]:
    """Start over what lies on the disk where nothing can run any more."""

    def before() -> None:
        system.own_mounts()
        system.drop(["BPF", "SYS_ADMIN"])

    return _serve(ends_with=signal.SIGTERM, before=before)


def _serve(
    *,
    ends_with: signal.Signals,
    enroll: bool = False,
    before: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    node.prepare()
    daemon = node.Daemon("--state-dir", str(_STATE_DIR), before=before, run_dir=_RUN_DIR)
    status = daemon.wait_ready()
    if isinstance(status, node.Ended):
        return {"mode": "none", "status": status.status, "log": status.log}
    answers = daemon.answers(_REQUESTS)
    if enroll:
        daemon.enroll("left-behind")
    ended = daemon.end(ends_with)
    return {
        "mode": status["mode"],
        "previous": status.get("previous"),
        "probe_cached": status["probe_cached"],
        "adopted": status["adopted"],
        "managed": status["managed"],
        "answers": dict(answers),
        "status": ended.status,
        "log": ended.log,
    }
