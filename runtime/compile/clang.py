# SPDX-License-Identifier: Apache-2.0
"""One BPF source in, one object out: clang, then llvm-strip, which leaves BTF and drops DWARF."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runtime.errors import KmeshError
from runtime.process import CommandError, run

# v3 (32-bit jumps and registers) is since kernel 5.1; the oldest that Kmesh runs on is 5.10.
FLAGS = (
    "-g",
    "-O2",
    "-target",
    "bpf",
    "-mcpu=v3",
    "-std=gnu11",
    "-fno-ident",
    "-fdebug-compilation-dir=.",
    "-Wall",
    "-Werror",
    "-Wno-address-of-packed-member",
)
# What BPF C cannot be compiled without, and the Debian package that has it.
_HEADERS = {"bpf/bpf_helpers.h": "libbpf-dev", "linux/bpf.h": "linux-libc-dev"}
_INCLUDE = Path("/usr/include")


class CompileError(KmeshError):
    """A source did not compile; the message is the compiler's first error."""


class ToolMissingError(CompileError):
    """The compiler, the stripper or the headers are not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledObject:
    """An object file and the sources that it was made from.

    Attributes:
        path: the object.
        sha256: of the object's bytes.
        source_sha256: of the source file's bytes, without its headers.
        size: bytes.
    """

    path: Path
    sha256: str
    source_sha256: str
    size: int


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def compiler_version(clang: str = "clang") -> str:
    """The compiler's name and version, one line.

    Raises:
        ToolMissingError: there is no such compiler.
    """
    try:
        return run([clang, "--version"]).stdout.splitlines()[0].strip()
    except CommandError as error:
        raise ToolMissingError(
            f"cannot compile BPF: no {clang} here", hint="install clang 14 or later (Debian: clang)"
        ) from error


def _stripper(clang: str) -> str:
    """llvm-strip of the same LLVM as the compiler, as clang-14 comes with llvm-strip-14."""
    name = Path(clang).name.replace("clang", "llvm-strip", 1)
    for candidate in (name, "llvm-strip"):
        found = shutil.which(candidate)
        if found:
            return found
    raise ToolMissingError(
        "cannot compile BPF: no llvm-strip here", hint="install LLVM's tools (Debian: llvm)"
    )


def system_include() -> list[str]:
    """The option for asm/types.h, which Debian keeps in a directory of the machine's own."""
    machine = platform.machine()
    if machine in {"i386", "i686"}:
        machine = "i386"
    return [
        option
        for path in sorted(_INCLUDE.glob(f"{machine}-linux-gnu*"))
        for option in ("-idirafter", str(path))
    ]


def _check_headers(include: Sequence[Path]) -> None:
    for header, package in _HEADERS.items():
        if not any((directory / header).is_file() for directory in (*include, _INCLUDE)):
            raise ToolMissingError(
                f"cannot compile BPF: no <{header}> here", hint=f"install it (Debian: {package})"
            )


def arguments(source: Path, *, include: Sequence[Path], defines: Sequence[str]) -> list[str]:
    """The compiler's options for a source: all that has a say in the bytes."""
    # In line information names start at the tree, wherever it is. clang looks for the source lines that go
    # into BTF under these very names, so it is run in the tree.
    return [
        *FLAGS,
        f"-ffile-prefix-map={_tree(source)}/=",
        *(
            f"-ffile-prefix-map={path}/="
            for path in include
            if not path.is_relative_to(_tree(source))
        ),
        *(f"-I{directory}" for directory in include),
        *system_include(),
        *(f"-D{define}" for define in defines),
    ]


def _tree(source: Path) -> Path:
    return source.parent.parent


def _first_error(output: str) -> str:
    found = re.search(r"^(?:\S.*?)?(?:fatal )?error: .*$", output, re.MULTILINE)
    return found.group(0) if found else (output.strip().splitlines() or ["no reason given"])[-1]


def compile_object(
    source: Path,
    target: Path,
    *,
    include: Sequence[Path],
    defines: Sequence[str] = (),
    clang: str = "clang",
) -> CompiledObject:
    """Compile a BPF C source into an object with BTF and without DWARF.

    Args:
        source: the C file.
        target: where the object goes; it is replaced in one step, or left alone on failure.
        include: directories of headers, before the system's.
        defines: preprocessor definitions, `NAME` or `NAME=VALUE`.
        clang: the compiler.

    Raises:
        ToolMissingError: the compiler or the headers are not there.
        CompileError: the source does not compile.
    """
    compiler_version(clang)
    _check_headers(include)
    source = source.resolve()
    absolute = [directory.resolve() for directory in include]
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        options = arguments(source, include=absolute, defines=defines)
        run([clang, *options, "-c", str(source), "-o", name], cwd=_tree(source))
        run([_stripper(clang), "-g", name])
        scratch.chmod(0o644)
        scratch.replace(target)
    except CommandError as error:
        raise CompileError(
            f"cannot compile {source.name}: {_first_error(error.output)}",
            hint="the whole output: " + " ".join(error.argv),
        ) from error
    finally:
        scratch.unlink(missing_ok=True)
    return CompiledObject(
        path=target,
        sha256=digest(target),
        source_sha256=digest(source),
        size=target.stat().st_size,
    )
