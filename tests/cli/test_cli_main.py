# SPDX-License-Identifier: Apache-2.0
"""The command lines: help is fast and teaches, errors are one line and a hint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = {"kmesh": "runtime.cli.main", "kmeshctl": "runtime.cli.ctl"}


def call(
    name: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", MODULES[name], *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)


@pytest.mark.parametrize("command", ["run", "probe", "exec", "cleanup", "version"])
def test_each_command_explains_itself(command: str) -> None:
    done = call("kmesh", command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: kmesh {command}" in done.stdout


@pytest.mark.parametrize(
    "command", ["status", "services", "workloads", "policies", "probe", "version", "dump"]
)
def test_each_question_explains_itself(command: str) -> None:
    done = call("kmeshctl", command, "--help")
    assert done.returncode == 0
    assert "--run-dir" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['kmesh', '--help']\n"
        "from runtime.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'yaml', 'kubernetes', 'grpc', 'elftools', 'prometheus_client', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_text_or_json() -> None:
    assert "libbpf:" in call("kmesh", "version").stdout
    facts = json.loads(call("kmesh", "version", "--output", "json").stdout)
    assert set(facts) == {"version", "commit", "libbpf", "objects", "objects_sha256"}


def test_without_a_daemon_there_is_one_line_a_hint_and_status_1(tmp_path: Path) -> None:
    for arguments in (["status"], ["services"], ["dump"]):
        done = call("kmeshctl", *arguments, "--run-dir", str(tmp_path))
        assert done.returncode == 1
        assert done.stdout == ""
        error, hint = done.stderr.splitlines()
        assert error == f"error: no kmesh daemon answers at {tmp_path}/kmesh.sock"
        assert hint.startswith("hint: start one")


@pytest.mark.parametrize("seconds", ["0", "0.3"])
def test_exec_without_a_daemon_does_not_run_the_command(tmp_path: Path, seconds: str) -> None:
    where = ("--run-dir", str(tmp_path), "--wait", seconds)
    done = call("kmesh", "exec", *where, "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 1
    *progress, error, _hint = done.stderr.splitlines()
    assert error.startswith(f"error: no kmesh daemon answers at {tmp_path}/kmesh.sock")
    waited = (
        []
        if seconds == "0"
        else ["kmesh exec: waiting up to 0.3 s for the daemon: nobody answers yet"]
    )
    assert progress == waited
    assert error.endswith("(waited 0.3 s)") is bool(waited)
    assert not (tmp_path / "ran").exists()


def test_a_traceback_comes_with_debug_only(tmp_path: Path) -> None:
    assert "Traceback" not in call("kmeshctl", "status", "--run-dir", str(tmp_path)).stderr
    assert "Traceback" in call("kmeshctl", "--debug", "status", "--run-dir", str(tmp_path)).stderr


def test_wrong_usage_is_status_2() -> None:
    done = call("kmesh", "run")
    assert done.returncode == 2
    assert "--source" in done.stderr
    assert call("kmesh", "nothing").returncode == 2


@pytest.mark.parametrize("source", ["files", "files:", "nothing:x", "files:/no/such/directory"])
def test_a_source_that_cannot_be_is_an_error_with_a_hint(source: str, tmp_path: Path) -> None:
    done = call("kmesh", "run", "--source", source, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "hint: " in done.stderr
    assert "files:DIR" in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    """An argument as long as no path can be."""
    done = call("kmesh", "run", "--source", f"files:/{'x' * 5000}", "--run-dir", str(tmp_path))
    assert done.returncode == 1
    assert "File name too long" in done.stderr
    assert "Traceback" not in done.stderr
