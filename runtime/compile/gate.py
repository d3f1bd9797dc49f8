# SPDX-License-Identifier: Apache-2.0
"""Compiling the gate: one static program, with llhttp's sources as Debian packages them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import KmeshError
from runtime.process import CommandError, run

NAME = "kmesh-gate"
# Node.js' parser, sources and all; its header is beside them.
LLHTTP = Path("/usr/share/llhttp")
LLHTTP_INCLUDE = Path("/usr/share/include/llhttp")
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror")
# The shared headers' idioms.
_QUIET = ("-Wno-unused-parameter", "-Wno-sign-compare", "-Wno-missing-field-initializers")
BASIC = (*FLAGS, *_QUIET)
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
HARDEN = ("-static-pie", "-fPIE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong")
# What images carry: the same bytes each time.
SHIPPED = (
    *BASIC,
    *HARDEN,
    *("-fno-ident", "-Wl,--build-id=none", "-Wl,-s"),
)


class GateError(KmeshError):
    """The gate could not be compiled."""


def include_options(checkout: Path) -> list[str]:
    """Where the gate's sources find headers; native ones stand before libbpf's."""
    return [
        f"-I{checkout / 'runtime/gate/native'}",
        f"-I{checkout / 'bpf/include'}",
        "-isystem",
        str(LLHTTP_INCLUDE),
    ]


def compile_gate(
    checkout: Path,
    target: Path,
    *,
    sources: Sequence[Path] = (),
    options: Sequence[str] = HARDEN,
    compiler: str = "gcc",
) -> Path:
    """Compile the gate.

    Args:
        checkout: the directory of `runtime/gate` and `bpf/include`.
        target: where the program goes.
        sources: other sources than all of the gate's; for tests.
        options: further options, `SANITIZE` for one.
        compiler: a C compiler.

    Returns:
        the target.

    Raises:
        GateError: llhttp's sources are missing, or it does not compile.
    """
    library = sorted(LLHTTP.glob("*.c"))
    if not library:
        raise GateError(
            f"cannot compile the gate: no llhttp in {LLHTTP}",
            hint="install it (Debian: node-llhttp)",
        )
    chosen = sources or sorted((checkout / "runtime/gate").glob("*.c"))
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, *BASIC, *options, *include_options(checkout)]
    try:
        run([*command, "-o", str(target), *map(str, [*chosen, *library])])
    except CommandError as error:
        raise GateError(f"cannot compile the gate: {error}") from error
    return target


def main() -> int:
    """`python -m runtime.compile.gate TARGET`: what `make gate` runs."""
    parser = argparse.ArgumentParser(prog="python -m runtime.compile.gate", description=__doc__)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    try:
        made = compile_gate(Path(__file__).resolve().parents[2], options.target.absolute())
    except KmeshError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{made}: {made.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
