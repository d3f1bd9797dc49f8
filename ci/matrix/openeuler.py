# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix.openeuler [KERNEL]`: the enhanced path's second provider, loaded and driven.

Boots a listed kernel (6.12) with a module of our own that offers what openEuler's kernels do (see
docs/second-provider.md), and runs the tests of the programs that need it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from ci.kernels.debian import Wanted, fetch, wanted
from ci.matrix.accelerator import accelerator
from ci.matrix.inside.openeuler import MODULE
from ci.matrix.measure import Row, inside, parse
from ci.matrix.module import module
from ci.matrix.plan import chosen
from ci.matrix.root import pack
from runtime.compile.native import compile_programs
from runtime.compile.tree import compile_tree
from runtime.errors import KmeshError

_CHECKOUT = Path(__file__).resolve().parents[2]
_SECONDS = 1500.0


def run_on(listed: Wanted) -> Row:
    """Boot a kernel, load the module, and run the tests.

    Returns:
        the prober's finding, the provider that it names, and the tests' outcome.

    Raises:
        KmeshError: it did not come to the end.
    """
    [kernel] = fetch([listed])
    compile_tree(_CHECKOUT / "bpf", _CHECKOUT / "build/all", unshipped=True)
    compile_programs(_CHECKOUT / "build/bin")
    with tempfile.TemporaryDirectory(prefix="kmesh-openeuler-") as name:
        root, archive = Path(name) / "root", Path(name) / "module.cpio"
        target = root / MODULE.relative_to("/")
        target.parent.mkdir(parents=True)
        shutil.copy(module(kernel, listed), target)
        shutil.copytree(_CHECKOUT / "build/all", root / "kmesh/build/all")  # with what is unshipped
        pack(root, archive)
        outcome = inside(
            kernel,
            ["openeuler"],
            timeout=_SECONDS,
            accelerator=accelerator(kernel),
            extra=[archive],
        )
    [row] = parse(outcome)
    return row


def complaints(row: Row) -> list[str]:
    """Everything that is not as it should be, a line each."""
    found = [f"{name} failed" for name in row["tests"]["failed"]]
    found += [f"{number} skipped: {why}" for why, number in row["tests"]["skipped"].items()]
    if not row["tests"]["passed"]:
        found.append("no test passed")
    before, after = row["before"], row["after"]
    if before["finding"] is not None:
        found.append(f"without the module the prober finds {before['finding']}")
    if (after["finding"] or {}).get("verdict") != "present":
        found.append(f"with the module the prober finds {after['finding']}")
    if after["load"] != "present":
        found.append(f"the program's object is {after['load']}")
    if after["provider"]["name"] != "stock":  # the rule: this kernel can route each request
        found.append(f"the provider is {after['provider']}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ci.matrix.openeuler", description=__doc__)
    parser.add_argument("kernel", nargs="?", default="6.12")
    options = parser.parse_args()
    try:
        [listed] = chosen(wanted(), [options.kernel])
        row = run_on(listed)
    except KmeshError as error:
        print(f"openeuler: {error}", file=sys.stderr)
        return 1
    print(json.dumps(row, indent=1))
    wrong = complaints(row)
    for line in wrong:
        print(f"FAILED: {line}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
