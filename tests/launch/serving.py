# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.launch.serving HOST:PORT...`: the bookstore's backends as `Node.start` wants a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_BACKEND = Path(__file__).resolve().parents[1] / "waypoint/backend.py"


def main() -> None:
    backend = subprocess.Popen(
        [sys.executable, str(_BACKEND), *sys.argv[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert backend.stdout
    assert backend.stdout.readline() == b"ready\n"
    print("up", flush=True)
    backend.wait()


if __name__ == "__main__":
    main()
