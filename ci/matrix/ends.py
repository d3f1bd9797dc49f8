# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix.ends DIRECTORY`: the newest and the oldest known kernel, booted one after the other over the same disk.

`make test` starts it beside its other tests, as an emulated kernel takes one CPU for minutes. Each row is
written to DIRECTORY as soon as it is there, or why there is none. It ends, with all that it started, when
its standard input does: nothing goes on when whoever started it is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path

from ci.kernels.debian import fetch, wanted
from ci.matrix.accelerator import accelerator
from ci.matrix.measure import Row, measure
from ci.matrix.update import AFTER, BEFORE
from runtime.compile.tree import compile_tree

# In the order of their boots: that which is there before an update first.
ENDS = {"newest": wanted()[-1], "oldest": wanted()[0]}
FAILED = "failed"
_CHECKOUT = Path(__file__).resolve().parents[2]


def place(directory: Path, name: str) -> Path:
    """Where the row of an end stands once it is there."""
    return directory / f"{name}.json"


def main() -> int:
    directory = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what is temporary is removed
    try:
        threading.Thread(target=_end_with_starter, daemon=True).start()
        # With those that no image carries: tests in the guest have them too.
        compile_tree(_CHECKOUT / "bpf", _CHECKOUT / "build/all", unshipped=True)
        with tempfile.TemporaryDirectory(prefix="kmesh-disk-") as disk:
            for name in ENDS:
                _write(place(directory, name), json.dumps(_row(name, Path(disk))))
    except BaseException:
        _write(directory / FAILED, traceback.format_exc())
        raise
    return 0


def _end_with_starter() -> None:
    while os.read(0, 4096):  # unbuffered: a buffer's lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _row(name: str, disk: Path) -> Row:
    [kernel] = fetch([ENDS[name]])
    return measure(
        kernel,
        suite=ENDS[name].suite,
        objects=_CHECKOUT / "build/bpf",
        depth="quick",
        accelerator=accelerator(kernel),
        also=BEFORE if name == "newest" else AFTER,
        disk=disk,
    )


def _write(target: Path, text: str) -> None:
    scratch = target.with_suffix(".partial")
    scratch.write_text(text)
    scratch.rename(target)


if __name__ == "__main__":
    sys.exit(main())
