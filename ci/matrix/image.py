# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix.image ARCHIVE KERNEL`: boot a listed kernel, and run an image's archive on it.

For images that `kmesh-build host --target-kernel` made for a kernel that is not this one (`make hosts
OUT=DIR`). In the guest the image has its own root: its prober reports, its daemon chooses a mode and
serves two backends to a governed process. Exit status 1: it did not serve both, did not end with 0, or
left something behind.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.archive import SavedImage
from ci.kernels.debian import Kernel, Wanted, fetch, wanted
from ci.matrix.accelerator import accelerator
from ci.matrix.measure import Row, inside, parse
from ci.matrix.plan import chosen
from ci.matrix.root import pack
from runtime.errors import KmeshError

_ROOT = "image"
_SECONDS = 900.0


def run_on(kernel: Kernel, image: Path) -> Row:
    """Boot a kernel, and run an image on it.

    Args:
        kernel: which.
        image: what `docker save` or `kmesh-build host` wrote.

    Returns:
        the prober's report, the mode that served, and who answered.

    Raises:
        KmeshError: it did not come to the end.
    """
    with tempfile.TemporaryDirectory(prefix="kmesh-image-") as name:
        root, archive = Path(name) / "root", Path(name) / "image.cpio"
        unpack(image, root / _ROOT)
        pack(root, archive)
        with_ = accelerator(kernel)
        told = parse(
            inside(kernel, ["image"], timeout=_SECONDS, accelerator=with_, extra=[archive])
        )
    return told[0]


def unpack(image: Path, target: Path) -> None:
    """Put an image's layers one over the other; there are no whiteouts in those that we make."""
    target.mkdir(parents=True)
    with SavedImage(image) as saved:
        for number in range(len(saved.layers)):
            with (
                saved.layer(number) as stream,
                tarfile.open(fileobj=stream) as layer,
            ):
                layer.extractall(target, filter="tar")


def complaints(told: Mapping[str, Any]) -> list[str]:
    """Everything that is not as it should be, a line each."""
    if told["mode"] == "none":
        return [f"it ended with {told['status']} instead of serving"]
    found = []
    if told["mode"] != told["report"]["mode"]["mode"]:
        found.append(f"its daemon runs {told['mode']}, its prober says {told['report']['mode']}")
    if set(told["answers"]) != {"blue", "green"}:
        found.append(f"not both backends answered: {told['answers']}")
    if told["status"]:
        found.append(f"it ended with {told['status']}")
    if told["left"]:
        found.append(f"it left {told['left']}")
    return found


def _one(kernel: str, archive: Path) -> list[Wanted]:
    if not archive.is_file():
        raise KmeshError(f"no image archive {archive}", hint="make hosts OUT=DIR makes some")
    found = chosen(wanted(), [kernel])
    if len(found) > 1:
        fitting = ", ".join(each.suite for each in found)
        raise KmeshError(f"{kernel} is more than one kernel", hint=f"say which: {fitting}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ci.matrix.image",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("archive", type=Path, help="what `kmesh-build host` or `docker save` wrote")
    parser.add_argument("kernel", help="its suite, or how its release begins: bookworm, 6.12")
    options = parser.parse_args()
    try:
        [kernel] = fetch(_one(options.kernel, options.archive))
        told = run_on(kernel, options.archive)
    except KmeshError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        print(f"image: {error}{hint}", file=sys.stderr)
        return 1
    wrong = complaints(told)
    print(
        f"{kernel.release}: mode {told['mode']}, answers {told['answers']}, ended with {told['status']}"
    )
    for line in wrong:
        print(f"FAILED: {line}", file=sys.stderr)
    if wrong:
        print(told["log"], file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
