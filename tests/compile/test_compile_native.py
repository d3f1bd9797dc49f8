# SPDX-License-Identifier: Apache-2.0
"""The native programs: static, the same bytes each time, and compiled only when something changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from runtime.compile import native
from runtime.compile.clang import CompileError
from runtime.compile.native import PROGRAMS, Program, compile_program

_NAMES = [program.name for program in PROGRAMS]


def built(checkout: Path, program: Program) -> Path:
    try:
        compile_program(program, checkout / "build" / "bin")
    except CompileError as error:
        pytest.skip(str(error))
    return checkout / "build" / "bin" / program.name


@pytest.mark.parametrize("program", PROGRAMS, ids=_NAMES)
def test_it_runs_on_any_distribution(checkout: Path, program: Program) -> None:
    path = built(checkout, program)
    assert path.stat().st_mode & 0o777 == 0o755
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf.get_section_by_name(".interp") is None, "it needs a dynamic linker"
        assert elf.get_section_by_name(".symtab") is None, "its symbols are still in it"
    assert str(checkout).encode() not in path.read_bytes()


def test_it_is_compiled_once_and_again_when_a_header_or_an_option_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/main.c").write_text('#include "n.h"\nint main(void) { return N; }\n')
    (tmp_path / "one/n.h").write_text("#define N 0\n")
    monkeypatch.setattr(native, "_RUNTIME", tmp_path)
    program = Program("one", ("one/*.c",), headers=("one",), compiler="gcc", flags=("-static",))
    target = tmp_path / "bin"
    assert compile_program(program, target)
    before = (target / "one").read_bytes()
    assert not compile_program(program, target)
    assert compile_program(replace(program, flags=("-static", "-g0")), target)
    assert compile_program(program, target)
    assert (target / "one").read_bytes() == before, "the same sources give other bytes"
    (tmp_path / "one/n.h").write_text("#define N 1\n")
    assert compile_program(program, target)
    assert (target / "one").read_bytes() != before


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    program = Program("none", (f"{tmp_path}/*.c",), needs="the package none")
    with pytest.raises(CompileError, match=f"cannot compile none: no {tmp_path}") as told:
        compile_program(program, tmp_path)
    assert told.value.hint == "install the package none"
    assert not list(tmp_path.iterdir())
