# SPDX-License-Identifier: Apache-2.0
"""A user with sudo: what needs root gets it, and what root leaves in the checkout is the user's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

USER = 65534
# `id` says that we are a user; sudo does what it would: root, and who asked.
ID = "#!/bin/sh\necho 1000\n"
SUDO = f"""\
#!/bin/sh
exec env -i HOME=/root SUDO_UID={USER} SUDO_GID={USER} "$@"
"""


def prepare(checkout: Path, place: Path, script: str, *, sudo: bool = True) -> list[str]:
    """The command that runs a script as root, on a machine where we are a user."""
    shutil.copytree(checkout / "ci" / "setup", place / "top" / "ci" / "setup")
    (place / "bin").mkdir()
    scripts = {"id": ID, "sudo": SUDO} if sudo else {"id": ID}
    for name, text in scripts.items():
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    for name in ("bash", "sh", "env", "dirname", "chown", "mkdir", "sleep", "touch"):
        (place / "bin" / name).symlink_to(shutil.which(name) or name)
    return [str(place / "top/ci/setup/as-root"), "sh", "-c", script]


def as_root(
    checkout: Path,
    place: Path,
    script: str,
    *,
    sudo: bool = True,
    told: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    argv = prepare(checkout, place, script, sudo=sudo)
    env = {"PATH": f"{place}/bin", **(told or {})}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


@pytest.mark.root
def test_what_root_leaves_in_the_checkout_is_the_user_s(checkout: Path, tmp_path: Path) -> None:
    script = "mkdir -p build/images && touch build/images/x kept; echo result; exit 7"
    done = as_root(checkout, tmp_path, script)
    assert done.returncode == 7
    assert done.stdout == "result\n"
    assert (tmp_path / "top" / "build" / "images" / "x").stat().st_uid == USER
    assert (tmp_path / "top" / "kept").stat().st_uid == os.geteuid()


@pytest.mark.root
@pytest.mark.parametrize("trap", ["trap 'exit 130' INT; ", ""])
def test_what_an_interrupted_command_made_is_the_user_s_all_the_same(
    checkout: Path, tmp_path: Path, trap: str
) -> None:
    """Ctrl-C reaches all of them at once; the command ends in order, or dies of it."""
    argv = prepare(checkout, tmp_path, f"{trap}mkdir -p build; while :; do sleep 0.1; done")
    env = {"PATH": f"{tmp_path}/bin"}
    with subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL, process_group=0) as child:
        while not (tmp_path / "top" / "build").is_dir():
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(60) == 130
    assert (tmp_path / "top" / "build").stat().st_uid == USER


@pytest.mark.root
def test_what_a_build_is_told_reaches_it_and_the_rest_does_not(
    checkout: Path, tmp_path: Path
) -> None:
    told = {"KMESH_CACHE": "/a b", "DOCKER_HOST": "unix:///x=y", "HOME": "/home/user", "LS": "z"}
    done = as_root(checkout, tmp_path, 'echo "$KMESH_CACHE|$DOCKER_HOST|$HOME|$LS|"', told=told)
    assert done.stdout == "/a b|unix:///x=y|/root||\n"


def test_without_sudo_it_is_told(checkout: Path, tmp_path: Path) -> None:
    done = as_root(checkout, tmp_path, "echo never", sudo=False)
    assert done.returncode == 1
    assert "sh needs root, and there is no sudo" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("target", "command"), [("docker", "kmesh-build"), ("test", "pytest")])
def test_make_asks_for_root_where_it_is_needed(checkout: Path, target: str, command: str) -> None:
    dry = subprocess.run(
        ["make", "--dry-run", target], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert f"ci/setup/as-root .venv/bin/{command}" in dry.stdout


@pytest.mark.root
def test_what_continuous_integration_requires_is_not_skipped(checkout: Path) -> None:
    """Root without a capability: the same that a user without sudo would have skipped."""
    argv = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable]
    argv += ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/setup"]
    argv += ["-k", "test_what_a_build_is_told"]
    codes = {}
    for required in ("", "root"):
        env = {**os.environ, "KMESH_REQUIRE": required}
        done = subprocess.run(
            argv, cwd=checkout, env=env, capture_output=True, text=True, check=False
        )
        codes[required] = done.returncode
    assert codes == {"": 0, "root": pytest.ExitCode.USAGE_ERROR}, done.stderr
    assert "needs CAP_NET_ADMIN" in done.stderr
    assert "KMESH_REQUIRE=root" in (checkout / ".ci" / "run").read_text()
