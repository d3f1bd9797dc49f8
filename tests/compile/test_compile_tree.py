# SPDX-License-Identifier: Apache-2.0
"""Compiling BPF sources: reproducible, only what changed, and clear about what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.bpf.btf import Btf
from runtime.compile import clang as clang_module
from runtime.compile.clang import CompileError, ToolMissingError, compile_object
from runtime.compile.tree import compile_tree

SOURCE = """// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <kmesh/answer.h>
char LICENSE[] SEC("license") = "GPL";
SEC("cgroup/connect4") int sample(struct bpf_sock_addr *ctx) { return ANSWER; }
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def tree(root: Path, *names: str) -> Path:
    bpf = root / "bpf"
    (bpf / "include/kmesh").mkdir(parents=True)
    (bpf / "include/kmesh/answer.h").write_text("#define ANSWER 1\n")
    for name in names:
        source = bpf / f"{name}.bpf.c"
        source.parent.mkdir(exist_ok=True)
        source.write_text(SOURCE)
    return bpf


def test_only_what_changed_is_compiled(tmp_path: Path) -> None:
    bpf, out = tree(tmp_path, "compat/one", "probe/two"), tmp_path / "out"
    assert compile_tree(bpf, out).compiled == ("compat/one.bpf.o", "probe/two.bpf.o")
    assert compile_tree(bpf, out).compiled == ()
    (bpf / "compat/one.bpf.c").write_text(SOURCE.replace("ANSWER", "0"))
    assert compile_tree(bpf, out).compiled == ("compat/one.bpf.o",)
    (bpf / "include/kmesh/answer.h").write_text("#define ANSWER 0\n")
    assert len(compile_tree(bpf, out).compiled) == 2


def test_a_damaged_or_lost_object_is_made_again(tmp_path: Path) -> None:
    bpf, out = tree(tmp_path, "compat/one", "compat/two"), tmp_path / "out"
    compile_tree(bpf, out)
    (out / "compat/one.bpf.o").write_bytes(b"")
    (out / "compat/two.bpf.o").unlink()
    assert len(compile_tree(bpf, out).compiled) == 2
    (out / "manifest.json").write_text("{")
    assert len(compile_tree(bpf, out).compiled) == 2


def test_what_is_not_shipped_is_compiled_only_when_asked_for(tmp_path: Path) -> None:
    bpf, out = tree(tmp_path, "compat/one", "later/two"), tmp_path / "out"
    (bpf / "later/UNSHIPPED").touch()
    assert compile_tree(bpf, out).compiled == ("compat/one.bpf.o",)
    assert compile_tree(bpf, out, unshipped=True).compiled == ("later/two.bpf.o",)
    assert compile_tree(bpf, out).removed == ("later/two.bpf.o",)


def test_an_object_without_a_source_goes(tmp_path: Path) -> None:
    bpf, out = tree(tmp_path, "compat/one", "compat/two"), tmp_path / "out"
    compile_tree(bpf, out)
    (bpf / "compat/two.bpf.c").unlink()
    assert compile_tree(bpf, out).removed == ("compat/two.bpf.o",)
    assert names(out / "compat") == ["one.bpf.o"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert [entry["path"] for entry in manifest["objects"]] == ["compat/one.bpf.o"]
    assert manifest["objects"][0]["sha256"] == clang_module.digest(out / "compat/one.bpf.o")


def test_bytes_do_not_depend_on_the_place(tmp_path: Path) -> None:
    for name in ("here", "somewhere/else"):
        root = tmp_path / name
        root.mkdir(parents=True)
        compile_tree(tree(root, "compat/one"), root / "out")
    first = tmp_path / "here/out/compat/one.bpf.o"
    assert first.read_bytes() == (tmp_path / "somewhere/else/out/compat/one.bpf.o").read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()


def test_bytes_do_not_depend_on_where_the_compiler_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BTF holds source lines, which clang finds by names that are relative to the tree."""
    bpf = tree(tmp_path, "compat/one")
    compile_tree(bpf, tmp_path / "one")
    monkeypatch.chdir("/")
    compile_tree(bpf, tmp_path / "two")
    made = [(tmp_path / name / "compat/one.bpf.o").read_bytes() for name in ("one", "two")]
    assert made[0] == made[1]
    assert b"return ANSWER" in made[0]


def test_types_stay_and_dwarf_goes(tmp_path: Path) -> None:
    compile_tree(tree(tmp_path, "compat/one"), tmp_path / "out")
    target = tmp_path / "out/compat/one.bpf.o"
    with Btf(target) as btf:
        assert len(btf) > 3
    sections = subprocess.run(
        ["llvm-readelf", "-S", str(target)], capture_output=True, check=True, text=True
    ).stdout
    assert ".BTF.ext" in sections
    assert ".debug_" not in sections


def test_a_source_that_does_not_compile_names_its_first_error(tmp_path: Path) -> None:
    bpf, out = tree(tmp_path, "compat/good", "compat/bad"), tmp_path / "out"
    (bpf / "compat/bad.bpf.c").write_text(SOURCE.replace("ANSWER", "NO_SUCH_THING"))
    with pytest.raises(CompileError, match=r"bad\.bpf\.c.*NO_SUCH_THING"):
        compile_tree(bpf, out)
    assert names(out / "compat") == ["good.bpf.o"]
    (bpf / "compat/bad.bpf.c").write_text(SOURCE)
    assert compile_tree(bpf, out).compiled == ("compat/bad.bpf.o",)


def test_a_failure_leaves_the_last_good_object(tmp_path: Path) -> None:
    bpf, target = tree(tmp_path, "compat/one"), tmp_path / "one.o"
    compile_object(bpf / "compat/one.bpf.c", target, include=[bpf / "include"])
    good = target.read_bytes()
    (bpf / "compat/one.bpf.c").write_text("junk")
    with pytest.raises(CompileError):
        compile_object(bpf / "compat/one.bpf.c", target, include=[bpf / "include"])
    assert target.read_bytes() == good


def test_a_missing_compiler_is_one_line_and_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match="no clang-0") as missing:
        compile_tree(tree(tmp_path, "compat/one"), tmp_path / "out", clang="clang-0")
    assert "Debian: clang" in (missing.value.hint or "")


def test_missing_headers_name_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clang_module, "_INCLUDE", tmp_path / "nowhere")
    with pytest.raises(ToolMissingError, match=r"bpf_helpers\.h") as missing:
        compile_tree(tree(tmp_path, "compat/one"), tmp_path / "out")
    assert "libbpf-dev" in (missing.value.hint or "")


def test_a_directory_without_sources_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no BPF sources"):
        compile_tree(tmp_path, tmp_path / "out")


def test_the_command_says_what_it_did(tmp_path: Path, checkout: Path) -> None:
    bpf = tree(tmp_path, "compat/one")
    command = [sys.executable, "-m", "runtime.compile", str(bpf), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "1 compiled, 0 unchanged, 0 removed" in done.stdout
    (bpf / "compat/one.bpf.c").write_text("junk")
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot compile one.bpf.c")
    assert "Traceback" not in done.stderr
