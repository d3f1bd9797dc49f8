# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.demo`, as root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from types import FrameType

from ci.demo import tell
from ci.demo.stage import DemoError, Stage
from ci.demo.story import tell_story

_INSIDE = "--inside"


def main() -> int:
    if os.geteuid() != 0:
        tell.bad("the demo loads programs into the kernel: run it as root (sudo make demo)")
        return 1
    if _INSIDE not in sys.argv:
        _enter_namespace()
    signal.signal(signal.SIGTERM, _interrupt)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return _play()


def _enter_namespace() -> None:
    """Start over in a new network namespace, which ends with the last process in it."""
    for tool in ("unshare", "ip", "curl"):
        if shutil.which(tool) is None:
            tell.bad(f"the demo needs {tool} (Debian: util-linux, iproute2, curl)")
            sys.exit(1)
    again = [sys.executable, "-m", "ci.demo", _INSIDE]
    os.execvp("unshare", ["unshare", "--net", "--", *again])  # noqa: S606 - becomes the demo


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _play() -> int:
    try:
        with Stage() as stage:
            tell_story(stage)
    except DemoError as error:
        tell.bad(str(error))
        return 1
    except KeyboardInterrupt:
        tell.bad("interrupted; everything that was started has been ended and removed")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
