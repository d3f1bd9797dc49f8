# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix.headers KERNEL`: boot a listed kernel with its headers and bcc, and hide its BTF."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from ci.kernels.debian import Wanted, fetch, wanted
from ci.kernels.headers import header_root
from ci.matrix.accelerator import accelerator
from ci.matrix.measure import Row, inside, parse
from ci.matrix.plan import chosen
from ci.matrix.root import pack, with_bcc
from runtime.errors import KmeshError

_SCENARIO = "no-btf-headers"
_SECONDS = 1500.0


def run_on(listed: Wanted) -> Row:
    """Boot a kernel, and carry the scenario out.

    Raises:
        KmeshError: it did not come to the end, or the headers in the suite are of another kernel.
    """
    [kernel] = fetch([listed])
    with tempfile.TemporaryDirectory(prefix="kmesh-headers-") as name:
        root, archive = Path(name) / "root", Path(name) / "headers.cpio"
        root.mkdir()
        release = header_root(listed, root)
        if release != kernel.release:
            raise KmeshError(f"the headers are of {release}, the kernel is {kernel.release}")
        _merge_usr(root)
        pack(root, archive)
        outcome = inside(
            kernel,
            [f"degrade={_SCENARIO}"],
            timeout=_SECONDS,
            accelerator=accelerator(kernel),
            extra=[with_bcc(), archive],
        )
        [row] = parse(outcome)
    return row


def _merge_usr(root: Path) -> None:
    """The guest's /lib is a link, which a directory of that name would take the place of."""
    for old in (root / "lib").glob("*"):
        (root / "usr/lib").mkdir(parents=True, exist_ok=True)
        old.rename(root / "usr/lib" / old.name)
    if (root / "lib").is_dir():
        (root / "lib").rmdir()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ci.matrix.headers", description=__doc__)
    parser.add_argument("kernel")
    options = parser.parse_args()
    try:
        [listed] = chosen(wanted(), [options.kernel])
        row = run_on(listed)
    except KmeshError as error:
        print(f"headers: {error}", file=sys.stderr)
        return 1
    print(json.dumps(row, indent=1))
    return int(bool(row["complaints"]))


if __name__ == "__main__":
    sys.exit(main())
