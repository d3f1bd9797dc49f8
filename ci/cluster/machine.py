# SPDX-License-Identifier: Apache-2.0
"""The cluster's machine from outside: brought up, entered, and taken down without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ci.cluster import binaries
from ci.cluster.cgroups import HOST
from ci.cluster.init import READY
from ci.cluster.parts import NODE
from runtime.errors import KmeshError

_TOOLS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "openssl": "openssl",
    "cc": "gcc",
}
TOP = Path(__file__).resolve().parents[2]
_SECONDS = 240
_EMPTY_SECONDS = 5  # until killed processes have left their control groups


def why_not() -> str | None:
    """Why no cluster can be brought up here, or None when one can."""
    if os.geteuid() != 0:
        return "a cluster needs root"
    missing = sorted({package for tool, package in _TOOLS.items() if not shutil.which(tool)})
    if not Path("/usr/lib/cni/bridge").is_file():
        missing.append("containernetworking-plugins")
    if missing:
        return f"a cluster needs Debian packages: {' '.join(missing)}"
    return binaries.why_not()


class Machine:
    """One cluster.

    Args:
        home: its directory, which is removed with it.
        cgroups: which control groups its node has (`ci.cluster.cgroups`).
    """

    def __init__(self, home: Path, *, cgroups: str = HOST) -> None:
        self.home = home.absolute()
        self.cgroups = cgroups
        self.kubeconfig = self.home / "kubeconfig"

    # From nothing to a Ready node, and back.

    def up(self) -> None:
        """Bring the cluster up, unless it is.

        Raises:
            KmeshError: it cannot be.
        """
        if self.pid is not None:
            return
        if reason := why_not():
            raise KmeshError(reason)
        kube = binaries.kube()
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / "bin").mkdir(parents=True)
        (self.home / "bin" / "kubectl").symlink_to(kube)
        inside = [sys.executable, "-m", "ci.cluster.init", str(self.home), str(kube)]
        inside.append(self.cgroups)
        argv = [
            *("unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"),
            *("--propagation", "slave", "--", *inside),
        ]
        with (self.home / "console").open("wb") as console:
            outer = subprocess.Popen(
                argv, stdout=console, stderr=console, cwd=TOP, start_new_session=True
            )
        (self.home / "outer").write_text(str(outer.pid))
        self._wait(outer)

    def _wait(self, outer: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _SECONDS
        while not ((self.home / READY).exists() and self._is_node_ready()):
            if outer.poll() is not None or time.monotonic() > deadline:
                told = (self.home / "console").read_text(errors="replace")[-2000:]
                self.down(keep=True)
                raise KmeshError(
                    f"the cluster did not come up: {told}", hint=f"see {self.home}/log"
                )
            time.sleep(0.2)

    def _is_node_ready(self) -> bool:
        with suppress(KmeshError, ValueError, KeyError):
            node = self.get("node", NODE)
            return any(
                each["type"] == "Ready" and each["status"] == "True"
                for each in node["status"]["conditions"]
            )
        return False

    def down(self, *, keep: bool = False) -> None:
        """End everything and remove what is left on the host. Idempotent.

        Args:
            keep: the directory with the logs stays.
        """
        outer = self._outer()
        if outer is not None:
            os.kill(outer, signal.SIGKILL)  # takes its child along, and that the whole namespace
            with suppress(ChildProcessError):
                os.waitpid(outer, 0)
            deadline = time.monotonic() + 30
            while Path(f"/proc/{outer}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        _remove_cgroups()
        (self.home / "outer").unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(self.home, ignore_errors=True)

    def _outer(self) -> int | None:
        with suppress(OSError, ValueError):
            pid = int((self.home / "outer").read_text())
            if str(self.home) in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        return None

    @property
    def pid(self) -> int | None:
        """The machine's first process, by its number out here; None while there is none."""
        outer = self._outer()
        if outer is None:
            return None
        with suppress(OSError, ValueError):
            return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
        return _child_of(outer)

    # Doing things on it.

    def inside(self, argv: Sequence[str]) -> list[str]:
        """A command line that runs another one on the machine.

        Raises:
            KmeshError: it is not up.
        """
        pid = self.pid
        if pid is None:
            raise KmeshError("no cluster is up", hint="make cluster")
        enter = [
            "nsenter",
            f"--target={pid}",
            "--net",
            "--mount",
            "--pid",
            f"--wd={Path.cwd()}",
            "--",
        ]
        path = f"{binaries.helm().parent}:{self.home / 'bin'}:{os.environ.get('PATH', '')}"
        return [*enter, "env", f"KUBECONFIG={self.kubeconfig}", f"PATH={path}", *argv]

    def call(
        self, argv: Sequence[str], *, stdin: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine to its end, whatever its status."""
        return subprocess.run(
            self.inside(argv),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def run(self, *argv: str, stdin: str = "", seconds: float = 120) -> str:
        """Run a command on the machine.

        Raises:
            KmeshError: it failed.
        """
        done = self.call(argv, stdin=stdin, seconds=seconds)
        if done.returncode != 0:
            raise KmeshError(f"{' '.join(argv[:6])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str = "", seconds: float = 120) -> str:
        return self.run("kubectl", *arguments, stdin=stdin, seconds=seconds)

    def get(self, *what: str) -> Any:
        """Objects as JSON."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def apply(self, manifest: str) -> None:
        self.kubectl("apply", "-f", "-", stdin=manifest)

    def load_image(self, archive: Path) -> None:
        """Import an image's archive into the runtime."""
        runtime = ("ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io")
        self.run(*runtime, "images", "import", str(archive), seconds=600)


def _child_of(parent: int) -> int | None:
    """Where the kernel lists no children (CONFIG_PROC_CHILDREN)."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if (
                entry.name.isdigit()
                and int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent
            ):
                return int(entry.name)
    return None


def _removed(parent: Path) -> bool:
    """Remove a cgroup and those below it, as far as nobody is in them; whether all are gone."""
    below = (each for each in parent.rglob("*") if each.is_dir())
    for path in (*sorted(below, reverse=True), parent):
        with suppress(OSError):
            path.rmdir()
    return not parent.exists()


def _remove_cgroups() -> None:
    """What the runtime made for containers that are no more, in every hierarchy."""
    for parent in Path("/sys/fs/cgroup").glob("**/k8s.io"):
        deadline = time.monotonic() + _EMPTY_SECONDS
        while not _removed(parent) and time.monotonic() < deadline:
            time.sleep(0.1)  # processes that were killed are about to leave
    for name in ("kmesh-gate", "kmesh-waypoint"):  # the daemon's, which ended with the namespace
        for path in Path("/sys/fs/cgroup").glob(f"**/{name}"):
            with suppress(OSError):  # somebody is in it: another daemon's, on the host itself
                path.rmdir()
