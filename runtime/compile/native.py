# SPDX-License-Identifier: Apache-2.0
"""The small native programs that run on a node beside Python: static, so that any distribution runs them.

`python -m runtime.compile.native DIRECTORY` is what `make bpf` runs for them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.compile.clang import CompileError, compiler_version
from runtime.errors import KmeshError
from runtime.process import CommandError, run

_RUNTIME = Path(__file__).resolve().parents[1]
FLAGS = (
    "-std=gnu11",
    "-Os",
    "-static",
    "-fno-ident",
    "-ffunction-sections",
    "-fstack-protector-strong",
    "-D_GNU_SOURCE",
    "-D_FORTIFY_SOURCE=2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--build-id=none",
    "-Wl,--gc-sections",
    "-Wl,-s",
)


@dataclass(frozen=True, slots=True)
class Program:
    """A native program: its name and its sources, below runtime/."""

    name: str
    sources: tuple[str, ...]


PROGRAMS = (Program("kmesh-cni", ("cni/kmesh-cni.c",)),)


def compile_program(program: Program, target: Path, *, clang: str = "clang") -> bool:
    """Compile a program, unless it is there and nothing that has a say in its bytes changed.

    Args:
        program: what to compile.
        target: the directory that it goes to; it is replaced in one step.
        clang: the compiler.

    Returns:
        whether it was compiled.

    Raises:
        CompileError: it does not compile, or there is no compiler.
    """
    sources = [_RUNTIME / name for name in program.sources]
    key, stamp = _key(sources, clang), target / f".{program.name}.key"
    if (target / program.name).is_file() and stamp.is_file() and stamp.read_text() == key:
        return False
    target.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{program.name}.", dir=target)
    os.close(handle)
    try:
        run([clang, *FLAGS, f"-ffile-prefix-map={_RUNTIME}/=", "-o", scratch, *map(str, sources)])
        Path(scratch).chmod(0o755)
        Path(scratch).replace(target / program.name)
    except CommandError as error:
        raise CompileError(
            f"cannot compile {program.name}: {error}", hint="libc6-dev has the static C library"
        ) from error
    finally:
        Path(scratch).unlink(missing_ok=True)
    stamp.write_text(key)
    return True


def compile_programs(target: Path, programs: Sequence[Program] = PROGRAMS) -> list[Path]:
    """Compile every program that is not current; the paths of all.

    Raises:
        CompileError: one does not compile.
    """
    for program in programs:
        compile_program(program, target)
    return [target / program.name for program in programs]


def _key(sources: Sequence[Path], clang: str) -> str:
    state = hashlib.sha256(repr((compiler_version(clang), FLAGS, platform.machine())).encode())
    for source in sources:
        for path in (source, *sorted(source.parent.glob("*.h"))):
            state.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return state.hexdigest()


def main() -> int:
    """Compile into the directory given."""
    try:
        compile_programs(Path(sys.argv[1]))
    except KmeshError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
