# SPDX-License-Identifier: Apache-2.0
"""What set-up does to a machine: in a mount namespace with apt, dpkg, systemd and Python played by scripts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

POLICY = "sbin/policy-rc.d"  # below the machine's directory; /usr/sbin in its namespace
# Debian's packages start their services unless the policy forbids it, and enable them in any case.
APT_GET = """\
#!/bin/sh
echo "noise of apt-get $*"
[ "$1" = install ] || exit 0
echo "$*" >>"$MACHINE/apt.log"
[ -z "${APT_FAILS:-}" ] || exit 100
if [ -x /usr/sbin/policy-rc.d ]; then /usr/sbin/policy-rc.d docker start; else true; fi
[ $? = 101 ] || echo docker.service >>"$MACHINE/started"
printf '%s\\n' docker.service docker.socket containerd.service >>"$MACHINE/enabled"
"""
SYSTEMCTL = """\
#!/bin/sh
case "$*" in
*list-unit-files*) sed 's/$/ enabled enabled/' "$MACHINE/enabled" ;;
*disable*)
	for unit in "$@"; do grep -vx -- "$unit" "$MACHINE/enabled" >"$MACHINE/left"; mv "$MACHINE/left" "$MACHINE/enabled"; done ;;
esac
"""
PYTHON = """\
#!/bin/sh
case "$*" in
"-m venv .venv") mkdir -p .venv/bin .venv/site && cp "$0" .venv/bin/python && cp "$0" .venv/bin/pip ;;
*purelib*) echo "$PWD/.venv/site" ;;
*version_info*) ;;
*) echo noise of python ;;
esac
"""


@dataclass(frozen=True)
class Machine:
    """A Debian that has nothing of what set-up installs."""

    place: Path

    def setup(self, *lists: str, **environment: str) -> subprocess.CompletedProcess[str]:
        script = 'mount --bind "$MACHINE/sbin" /usr/sbin && exec "$0" "$@"'
        argv = ["unshare", "--mount", "sh", "-c", script, str(self.place / "top/ci/setup/setup")]
        env = {
            "PATH": f"{self.place}/bin:/usr/bin:/bin",
            "MACHINE": str(self.place),
            "PYTHON": f"{self.place}/bin/python",
            "DOCKER_HOST": f"unix://{self.place}/none.sock",
            **environment,
        }
        return subprocess.run([*argv, *lists], env=env, capture_output=True, text=True, check=False)

    def lines(self, name: str) -> Sequence[str]:
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(checkout: Path, tmp_path: Path) -> Machine:
    shutil.copytree(checkout / "ci" / "setup", tmp_path / "top" / "ci" / "setup")
    (tmp_path / "top" / "requirements").mkdir()
    (tmp_path / "top" / "requirements" / "dev.lock").touch()
    (tmp_path / "top" / "pyproject.toml").touch()
    (tmp_path / "enabled").write_text("ssh.service\n")
    scripts = {"apt-get": APT_GET, "systemctl": SYSTEMCTL, "python": PYTHON}
    scripts["dpkg-query"] = "#!/bin/sh\nexit 1\n"
    (tmp_path / "sbin").mkdir()
    (tmp_path / "bin").mkdir()
    for name, text in scripts.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return Machine(tmp_path)


def test_standard_output_is_left_to_results(machine: Machine) -> None:
    done = machine.setup("build", "engine")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "setup: installing Debian packages:" in done.stderr
    assert "docker.io" in machine.lines("apt.log")[0]


def test_what_is_installed_is_neither_started_nor_enabled(machine: Machine) -> None:
    done = machine.setup("build", "engine")
    assert machine.lines("started") == []
    assert machine.lines("enabled") == ["ssh.service"]
    assert "neither started nor enabled: containerd.service docker.service" in done.stderr
    assert not (machine.place / POLICY).exists()


def test_a_policy_of_the_host_is_there_again_afterwards(machine: Machine) -> None:
    own = "#!/bin/sh\nexit 0\n"
    (machine.place / POLICY).write_text(own)
    (machine.place / POLICY).chmod(0o755)
    for fails in ("", "1"):
        done = machine.setup("engine", APT_FAILS=fails)
        assert (done.returncode == 0) == (not fails)
        assert machine.lines("started") == []
        assert (machine.place / POLICY).read_text() == own
        assert [path.name for path in (machine.place / "sbin").iterdir()] == ["policy-rc.d"]


def test_what_a_killed_run_left_is_put_right(machine: Machine) -> None:
    (machine.place / POLICY).write_text(
        "#!/bin/sh\n# kmesh setup: of a run that was killed\nexit 101\n"
    )
    (machine.place / f"{POLICY}.kmesh").write_text("own")
    machine.setup("engine")
    assert (machine.place / POLICY).read_text() == "own"
    assert not (machine.place / f"{POLICY}.kmesh").exists()


def test_packages_that_cannot_be_had_end_set_up(machine: Machine) -> None:
    done = machine.setup("engine", APT_FAILS="1")
    assert done.returncode == 1
    assert "setup: could not install: docker.io" in done.stderr
    assert not (machine.place / "top" / ".venv").exists()
