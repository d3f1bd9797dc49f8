# SPDX-License-Identifier: Apache-2.0
"""An image, run in the booted kernel as a container would be: its own root, the host's kernel file systems."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ci.matrix.inside import node

ROOT = Path("/image")
_SHARED = ("proc", "sys", "dev", "run", "tmp")
_REQUESTS = 24  # of two backends, one is left out by chance once in eight million times


def run_image() -> dict[str, Any]:
    """The report of the image's prober, and who answers a process that its daemon governs."""
    for name in _SHARED:
        (ROOT / name).mkdir(exist_ok=True)
        subprocess.run(["mount", "--rbind", f"/{name}", str(ROOT / name)], check=True)
    program = ("chroot", str(ROOT), "kmesh")
    probed = subprocess.run(
        [*program, "probe", "--output", "json", "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(probed.stdout)
    node.prepare()
    daemon = node.Daemon(program=program)
    status = daemon.wait_ready()
    if isinstance(status, node.Ended):
        return {"mode": "none", "answers": {}, "status": status.status, "log": status.log}
    answers = daemon.answers(_REQUESTS)
    ended = daemon.end()
    return {
        "report": report,
        "mode": status["mode"],
        "compiled": status["compiled"],
        "answers": dict(answers),
        "status": ended.status,
        "left": node.leftovers(),
        "log": ended.log,
    }
