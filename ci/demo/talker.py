# SPDX-License-Identifier: Apache-2.0
"""The client of the demo, and how its races are told."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ci.demo import tell
from ci.demo.stage import KMESH, DemoError, Stage

_PATIENCE = 30.0  # seconds


class Talker:
    """A managed process in the client's namespace."""

    def __init__(self, stage: Stage, namespace: Path) -> None:
        run = [str(KMESH), "exec", "--netns", str(namespace), "--"]
        self._process = stage.start_talking([*run, sys.executable, "-m", "ci.demo.client"])

    def __call__(self, do: str, *arguments: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise DemoError(f"the client: {answer['error']}")
        return answer["result"]

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=_PATIENCE)


def tell_race(
    took: Mapping[str, float], ways: Mapping[str, str], *, rounds: int
) -> dict[str, dict[str, float]]:
    """Tell what a request took by each way, and as a share of the direct one.

    Args:
        took: microseconds by way, `direct` among them.
        ways: the ways in words, in the order in which to tell.
        rounds: how many requests each.

    Returns:
        both, ready for JSON.
    """
    tell.say(f"{rounds} requests GET / each way, taking turns; medians, with a client in Python:")
    ratios = {name: one / took["direct"] for name, one in took.items()}
    for name, words in ways.items():
        if name in took:
            tell.output([f"{words:<36} {took[name]:>6.0f} µs  {ratios[name]:5.2f} x direct"])
    return {
        "us": {name: round(one, 1) for name, one in took.items()},
        "of_direct": {name: round(one, 3) for name, one in ratios.items()},
    }
