# SPDX-License-Identifier: Apache-2.0
"""`python -m runtime.compile SOURCES OBJECTS`: what `make bpf` runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runtime.compile.tree import compile_tree
from runtime.errors import KmeshError


def main() -> int:
    """Compile a tree, and say in one line what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.compile",
        description="Compile the BPF sources below a directory; only what changed is compiled.",
    )
    parser.add_argument("sources", type=Path, help="directory of <group>/<name>.bpf.c and include/")
    parser.add_argument("objects", type=Path, help="directory for <group>/<name>.bpf.o")
    parser.add_argument("--jobs", type=int, help="compilers at a time (default: one a processor)")
    parser.add_argument("--clang", default="clang", help="the compiler (default: clang)")
    parser.add_argument("--unshipped", action="store_true", help="what no image carries yet, too")
    options = parser.parse_args()
    try:
        done = compile_tree(
            options.sources,
            options.objects,
            jobs=options.jobs,
            clang=options.clang,
            unshipped=options.unshipped,
        )
    except KmeshError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    print(
        f"{options.objects}: {len(done.compiled)} compiled, {len(done.unchanged)} unchanged, "
        f"{len(done.removed)} removed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
