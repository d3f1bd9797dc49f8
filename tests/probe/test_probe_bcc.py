# SPDX-License-Identifier: Apache-2.0
"""The bcc adapter: what it finds, what it says when there is nothing, and that nobody waits for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest

from runtime.errors import KmeshError
from runtime.probe import bcc_adapter


def test_headers_where_distributions_put_them(tmp_path: Path) -> None:
    assert bcc_adapter.headers("1.2", root=tmp_path) is None
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/kheaders.tar.xz").touch()
    assert bcc_adapter.headers("1.2", root=tmp_path) == tmp_path / "sys/kernel/kheaders.tar.xz"
    build = tmp_path / "lib/modules/1.2/build"
    build.mkdir(parents=True)
    assert bcc_adapter.headers("1.2", root=tmp_path) == build


def test_headers_that_were_said_count_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
    assert bcc_adapter.headers("1.2") == tmp_path
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path / "none"))
    assert bcc_adapter.headers("1.2") is None


def test_why_it_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert bcc_adapter.unavailable("1.2", root=tmp_path) == "bcc for Python is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    assert "headers of kernel 1.2 are not" in (bcc_adapter.unavailable("1.2", root=tmp_path) or "")
    with pytest.raises(KmeshError, match="cannot look into kernel headers"):
        bcc_adapter.missing_fields("1.2-none", ["sock.sk_sndbuf"])


class Compiler:
    """Stands for bcc.BPF: knows some fields and symbols, and refuses the rest as bcc does."""

    fields = ("struct sock, sk_sndbuf", "struct tcp_sock, copied_seq")
    symbols = (b"tcp_sendmsg",)
    asked = 0

    def __init__(self, *, text: bytes) -> None:
        type(self).asked += 1
        wanted = text.decode().count("__builtin_offsetof")
        if sum(text.decode().count(field) for field in self.fields) != wanted:
            raise Exception("Failed to compile BPF module <text>")  # noqa: TRY002 - as bcc does

    @classmethod
    def ksymname(cls, name: bytes) -> int:
        return 0 if name in cls.symbols else -1


@pytest.fixture
def fake_bcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType("bcc")
    module.BPF = Compiler  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name="bcc")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "bcc", module)
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))


def test_fields_in_headers(fake_bcc: None) -> None:
    wanted = ["sock.sk_sndbuf", "tcp_sock.copied_seq"]
    assert bcc_adapter.missing_fields("1.2", wanted) == []
    assert bcc_adapter.missing_fields("1.2", [*wanted, "sock.none"]) == ["sock.none"]


def test_functions_in_kallsyms(fake_bcc: None) -> None:
    assert bcc_adapter.missing_functions(["tcp_sendmsg", "no_such"]) == ["no_such"]


def test_headers_that_do_not_compile_are_told_from_missing_fields(
    fake_bcc: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Compiler, "fields", ())
    monkeypatch.setattr(bcc_adapter, "_compiles", lambda _paths: False)
    with pytest.raises(KmeshError, match="bcc cannot compile with the headers"):
        bcc_adapter.missing_fields("1.2", ["sock.sk_sndbuf"])


def test_a_prober_that_needs_no_bcc_does_not_import_it() -> None:
    code = (
        "import sys; from pathlib import Path; from runtime.probe.run import probe\n"
        "probe(objects=None, quick=True)\n"
        "print([name for name in sys.modules if name.split('.')[0] in"
        " ('bcc', 'rich', 'kubernetes', 'grpc', 'docker')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.root
@pytest.mark.skipif(
    importlib.util.find_spec("bcc") is None, reason="needs the distribution's bcc (python3-bpfcc)"
)
def test_the_real_one_knows_this_kernel() -> None:
    assert bcc_adapter.missing_functions(["tcp_sendmsg", "no_such_function"]) == [
        "no_such_function"
    ]
