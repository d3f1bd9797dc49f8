# SPDX-License-Identifier: Apache-2.0
"""Kernels that are not running: BTF with a name changed, configurations, findings at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.process import run

_HEADERS = Path(__file__).parents[2] / "bpf/include"
RUNNING_BTF = Path("/sys/kernel/btf/vmlinux")
SNPRINTF = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("cgroup/connect4")
int f(struct bpf_sock_addr *ctx)
{
	char out[8];
	static const char fmt[] = "%d";
	__u64 args[] = { 1 };

	return bpf_snprintf(out, sizeof(out), fmt, args, sizeof(args)) > 0;
}
"""
Patch = Callable[..., Path]


@pytest.fixture(scope="session")
def patch_btf(tmp_path_factory: pytest.TempPathFactory) -> Patch:
    """The running kernel's BTF with names changed: `patch_btf({"old": "new"})`, of one length."""
    directory = tmp_path_factory.mktemp("btf")

    def patch(names: dict[str, str]) -> Path:
        data = RUNNING_BTF.read_bytes()
        for old, new in names.items():
            assert len(old) == len(new)
            needle = b"\0" + old.encode() + b"\0"
            assert data.count(needle) == 1, old
            data = data.replace(needle, b"\0" + new.encode() + b"\0")
        path = directory / f"{len(list(directory.iterdir()))}.btf"
        path.write_bytes(data)
        return path

    return patch


@pytest.fixture(scope="session")
def compile_one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A directory of objects with one of the compat group, compiled from a source text."""

    def compile_text(text: str) -> Path:
        directory = tmp_path_factory.mktemp("objects")
        (directory / "compat").mkdir()
        source = directory / "f.bpf.c"
        source.write_text(text)
        target = directory / "compat" / "f.bpf.o"
        flags = ["-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu", f"-I{_HEADERS}"]
        run(["clang", *flags, "-c", str(source), "-o", str(target)], timeout=60)
        return directory

    return compile_text


@pytest.fixture(scope="session")
def calls_helper_165(compile_one: Callable[[str], Path]) -> Path:
    return compile_one(SNPRINTF)


@pytest.fixture
def kmesh_probe(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `kmesh probe` as users do, in a process of its own, perhaps behind a wrapper command."""

    def call(*arguments: str, behind: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        argv = [*behind, sys.executable, "-m", "runtime.cli.main", "probe", *arguments]
        checkout = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "KMESH_RUN_DIR": str(tmp_path)}
        return subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return call


@pytest.fixture
def probe_json(
    kmesh_probe: Callable[..., subprocess.CompletedProcess[str]], objects: Path
) -> Callable[..., dict[str, Any]]:
    def call(*arguments: str, behind: Sequence[str] = ()) -> dict[str, Any]:
        done = kmesh_probe(
            "--output", "json", "--no-cache", "--objects", str(objects), *arguments, behind=behind
        )
        assert done.returncode in (0, 3), done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        expected = 3 if report["mode"]["mode"] == "none" else 0
        assert done.returncode == expected
        return report

    return call
