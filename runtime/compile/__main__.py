# SPDX-License-Identifier: Apache-2.0
"""`python -m runtime.compile SOURCES OBJECTS`: what `make bpf` runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from runtime.compile.evidence import best, compile_from
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
    parser.add_argument(
        "--fit", metavar="RELEASE", help="compile for this running kernel, by the best it tells"
    )
    parser.add_argument("--btf", type=Path, help="the BTF of that kernel")
    parser.add_argument("--unshipped", action="store_true", help="what no image carries yet, too")
    options = parser.parse_args()
    try:
        if options.fit:
            return _fit(options)
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


def _fit(options: argparse.Namespace) -> int:
    """Compile by the best evidence, and say as JSON from what."""
    evidence = best(options.fit, btf=options.btf)
    headers = options.objects / ".headers"
    done, renumbered = compile_from(evidence, options.sources, options.objects, headers=headers)
    told = {
        "evidence": evidence.kind,
        "where": evidence.where,
        "renumbered_helpers": renumbered,
        "compiled": len(done.compiled),
        "unchanged": len(done.unchanged),
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
