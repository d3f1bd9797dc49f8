# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix.headers [--write] KERNEL...`: boot kernels with their headers and bcc, and hide their BTF.

`make matrix` does it too. --write keeps the outcome in docs/kernels.json, beside what is there of that kernel.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.kernels.debian import Wanted, fetch, wanted
from ci.kernels.headers import header_root
from ci.matrix.accelerator import accelerator
from ci.matrix.measure import Row, failures, inside, parse
from ci.matrix.plan import chosen
from ci.matrix.results import DOCUMENT, TEMPLATE, degraded, document, read, write
from ci.matrix.root import pack, with_bcc
from ci.matrix.select import Selection
from runtime.errors import KmeshError

SCENARIO = "no-btf-headers"
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
            [f"degrade={SCENARIO}"],
            timeout=_SECONDS,
            accelerator=accelerator(kernel),
            extra=[with_bcc(), archive],
        )
        [row] = parse(outcome)
    return row


def beside(row: Row, listed: Wanted, *, take: Selection) -> Row:
    """A kernel's row with what its boot with headers told, or told at the last run."""
    stage = f"degrade={SCENARIO}"
    before = [each for each in take.told if each["stage"] == stage]
    if not before or take(stage):
        try:
            before = [run_on(listed)]
        except KmeshError as error:
            before = [{"stage": stage, "error": str(error)}]
    good = [each for each in before if "error" not in each]
    row = {**row, "told": [*row["told"], *before], "degraded": [*row["degraded"], *good]}
    return {**row, "failures": failures(row)}


def _merge_usr(root: Path) -> None:
    """The guest's /lib is a link, which a directory of that name would take the place of."""
    for old in (root / "lib").glob("*"):
        (root / "usr/lib").mkdir(parents=True, exist_ok=True)
        old.rename(root / "usr/lib" / old.name)
    if (root / "lib").is_dir():
        (root / "lib").rmdir()


def keep(rows: Sequence[Mapping[str, Any]], suite: str, row: Row) -> list[dict[str, Any]]:
    """The kept rows, with this outcome in the row of its kernel.

    Raises:
        KmeshError: nothing is kept of that kernel.
    """
    if suite not in {each["suite"] for each in rows}:
        raise KmeshError(f"nothing is kept of {suite}", hint="make matrix writes its row")
    added = degraded([row])
    return [
        {**each, "degraded": {**each["degraded"], **added}} if each["suite"] == suite else {**each}
        for each in rows
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ci.matrix.headers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kernels", nargs="+", metavar="KERNEL")
    parser.add_argument("--write", action="store_true", help="keep the outcome in docs/")
    options = parser.parse_args()
    wrong = 0
    try:
        for listed in chosen(wanted(), options.kernels):
            row = run_on(listed)
            print(json.dumps(row, indent=1), flush=True)
            wrong += bool(row["complaints"])
            if options.write and not row["complaints"]:
                _write(listed, row)
    except KmeshError as error:
        print(f"headers: {error}", file=sys.stderr)
        return 1
    return int(bool(wrong))


def _write(listed: Wanted, row: Row) -> None:
    write(keep(read(), listed.suite, row))
    listing = [each.suite for each in wanted()]
    DOCUMENT.write_text(document(read(), TEMPLATE.read_text(), listed=listing))


if __name__ == "__main__":
    sys.exit(main())
