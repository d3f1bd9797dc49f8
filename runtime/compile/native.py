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

from runtime.compile import gate
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
    """A native program.

    Attributes:
        sources: patterns of files, below runtime/ or absolute.
        headers: directories, likewise, all of whose headers have a say in it.
        needs: what to install where a pattern finds nothing.
    """

    name: str
    sources: tuple[str, ...]
    headers: tuple[str, ...] = ()
    compiler: str = "clang"
    flags: tuple[str, ...] = FLAGS
    needs: str = ""

    def files(self) -> list[Path]:
        """Its sources. Raises: CompileError: a pattern finds none."""
        found: list[Path] = []
        for pattern in self.sources:
            place = _RUNTIME / pattern
            these = sorted(place.parent.glob(place.name))
            if not these:
                raise CompileError(
                    f"cannot compile {self.name}: no {place}",
                    hint=f"install {self.needs}" if self.needs else None,
                )
            found += these
        return found


GATE = Program(
    gate.NAME,
    ("gate/*.c", f"{gate.LLHTTP}/*.c"),
    headers=("gate", "../bpf/include", str(gate.LLHTTP_INCLUDE)),
    compiler="gcc",
    flags=(*gate.SHIPPED, *gate.include_options(_RUNTIME.parent)),
    needs="llhttp's sources (Debian: node-llhttp)",
)
PROGRAMS = (Program("kmesh-cni", ("cni/kmesh-cni.c",), headers=("cni",)), GATE)


def compile_program(program: Program, target: Path, *, compiler: str | None = None) -> bool:
    """Compile a program, unless it is there and nothing that has a say in its bytes changed.

    Args:
        program: what to compile.
        target: the directory that it goes to; it is replaced in one step.
        compiler: another one than the program says.

    Returns:
        whether it was compiled.

    Raises:
        CompileError: it does not compile, or there is no compiler.
    """
    sources, chosen = program.files(), compiler or program.compiler
    key, stamp = _key(program, sources, chosen), target / f".{program.name}.key"
    if (target / program.name).is_file() and stamp.is_file() and stamp.read_text() == key:
        return False
    target.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{program.name}.", dir=target)
    os.close(handle)
    try:
        own = f"-ffile-prefix-map={_RUNTIME.parent}/="
        run([chosen, *program.flags, own, "-o", scratch, *map(str, sources)])
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


def _key(program: Program, sources: Sequence[Path], compiler: str) -> str:
    told = compiler_version(compiler), program.flags, platform.machine()
    state = hashlib.sha256(repr(told).encode())
    headers = (path for name in program.headers for path in (_RUNTIME / name).rglob("*.h"))
    for path in (*sources, *sorted(headers)):
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
