# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix.inside STAGE[=ARGUMENT,...]...`: run stages, print a line of JSON for each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ci.demo.story import ADDRESS
from ci.matrix.inside import node, update
from ci.matrix.inside.degrade import degrade
from ci.matrix.inside.image import run_image
from ci.matrix.inside.openeuler import run_openeuler
from ci.matrix.inside.suites import run_tests
from runtime.probe.mode import PATHS

_REQUESTS = 24  # of two backends, one is left out by chance once in eight million times
_report: dict[str, Any] = {}  # of the stage "probe"


def probe(_arguments: Sequence[str]) -> dict[str, Any]:
    """The prober's full report, as its users get it."""
    done = subprocess.run(
        [*(sys.executable, "-m", "runtime.cli.main"), *("probe", "--output", "json", "--no-cache")],
        capture_output=True,
        text=True,
        check=False,
    )
    _report.update(json.loads(done.stdout))
    return {"status": done.returncode, "report": _report, "errors": done.stderr}


def serve(_arguments: Sequence[str]) -> dict[str, Any]:
    """The mode that `kmesh run` chooses, and who answers a governed process."""
    node.prepare()
    daemon = node.Daemon()
    status = daemon.wait_ready()
    if isinstance(status, node.Ended):
        return {"mode": "none", "answers": {}, "status": status.status, "log": status.log}
    answers = daemon.answers(_REQUESTS)
    outside = node.ask(ADDRESS, 1)
    ended = daemon.end()
    return {
        "mode": status["mode"],
        "answers": dict(answers),
        "unmanaged": dict(outside),
        "status": ended.status,
        "left": node.leftovers(),
        "log": ended.log,
    }


def tests(words: Sequence[str]) -> dict[str, Any]:
    """Tests of a path, where the kernel runs that path."""
    mode = _report["mode"]["mode"] if _report else words[0]
    runs = PATHS[PATHS.index(mode) :] if mode in PATHS else ()
    if words[0] not in runs:
        return {"path": words[0], "passed": 0, "skipped": {f"mode is {mode}": 1}, "failed": []}
    return run_tests(words)


STAGES: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "probe": probe,
    "serve": serve,
    "tests": tests,
    "degrade": lambda names: degrade(names[0]),
    "image": lambda _names: run_image(),
    "openeuler": lambda _names: run_openeuler(),
    "update-first": lambda _names: update.first(),
    "update-again": lambda _names: update.again(),
    "update-unable": lambda _names: update.unable(),
}


def main() -> int:
    failed = False
    for word in sys.argv[1:]:
        name, _, rest = word.partition("=")
        began = time.monotonic()
        try:
            result = STAGES[name](rest.split(",") if rest else ())
        except Exception:  # noqa: BLE001 - whatever it is, the host must hear of it
            result = {"error": traceback.format_exc()}
            failed = True
        seconds = round(time.monotonic() - began, 1)
        print(json.dumps({"stage": word, "seconds": seconds, **result}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
