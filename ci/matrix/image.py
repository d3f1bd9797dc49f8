# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix.image ARCHIVE KERNEL`: boot a listed kernel, and run an image's archive on it.

For images that `kmesh-build host --target-kernel` made for a kernel that is not this one.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from pathlib import Path

from builder.archive import SavedImage
from ci.kernels.debian import Kernel, fetch, wanted
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ci.matrix.image", description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("kernel")
    options = parser.parse_args()
    try:
        [listed] = chosen(wanted(), [options.kernel])
        told = run_on(fetch([listed])[0], options.archive)
    except KmeshError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    good = set(told["answers"]) == {"blue", "green"} and not told["status"] and not told["left"]
    print(f"mode {told['mode']}, answers {told['answers']}, ended with {told['status']}")
    if not good:
        print(told["log"], file=sys.stderr)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
