# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.cluster.init HOME KUBE CGROUPS`: the first process of the cluster's machine.

It runs in fresh PID, mount and network namespaces, makes of them a node, starts everything and waits.
When it ends, the kernel ends the rest.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ci.cluster import cgroups, parts, pki
from ci.cluster.archive import pause_image

_SECONDS = 180
READY = "ready"
# Of the node's alone: what is there on the host is hidden, and what is made there goes with the machine.
OWN = (
    "/run/netns",
    "/run/containerd",
    "/run/kmesh",
    "/opt/cni/bin",
    "/etc/cni/net.d",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
)


def main() -> int:
    home, kube, groups = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    mount()
    network()
    for plugin in Path("/usr/lib/cni").iterdir():
        shutil.copy2(plugin, parts.CNI_BIN / plugin.name)
    runtime = None
    if groups == cgroups.VERSION_2:
        cgroups.mount_version_2()
        cgroups.make_pods_groups(parts.CNI_BIN)
        runtime = cgroups.write_runtime(home / "bin" / "runc-in-pod")
    parts.write_config(home, runtime=runtime)
    pki.make(home / "pki", addresses=["127.0.0.1", parts.NODE_IP, "10.96.0.1"])
    pki.kubeconfig(home / "kubeconfig", server=parts.SERVER, authority=home / "pki" / "ca.crt")
    started = start(home, kube)
    (home / READY).touch()
    return wait(started)


def mount() -> None:
    """Mounts of the node's own; shared within, as kubelets want it, and never with the host's.

    Where the host's mounts are shared (systemd makes all so, `ip netns` its directory), a namespace
    that only were shared itself would mount over theirs.
    """
    call("mount", "--make-rshared", "/")
    for place in OWN:
        Path(place).mkdir(parents=True, exist_ok=True)
        call("mount", "-t", "tmpfs", "tmpfs", place)
    call("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")


def network() -> None:
    """A loopback, the node's address, and nowhere to go for what is neither."""
    call("ip", "link", "set", "lo", "up")
    call("ip", "link", "add", "node0", "type", "bridge")
    call("ip", "address", "add", f"{parts.NODE_IP}/24", "dev", "node0")
    call("ip", "link", "set", "node0", "up")
    call("ip", "route", "add", "blackhole", parts.SERVICES)
    call("ip", "route", "add", "blackhole", parts.PODS)
    for name in ("ipv4/ip_forward", "ipv4/conf/all/route_localnet"):
        Path(f"/proc/sys/net/{name}").write_text("1")


def start(home: Path, kube: Path) -> dict[str, subprocess.Popen[bytes]]:
    """Start every process, each once what it needs answers."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    (home / "log").mkdir()
    for name, argv in parts.commands(home, kube).items():
        if name == "controller-manager":
            until(lambda: answers(f"{parts.SERVER}/readyz"), "the API server is not ready")
        if name == "kubelet":
            until(Path("/run/containerd/containerd.sock").exists, "containerd does not listen")
            until(lambda: ctr("version"), "containerd does not answer")
            ctr("images", "import", str(pause_image(home)))
        with (home / "log" / name).open("wb") as log:
            # Each in a session of its own: Ctrl-C at the terminal is for this process to handle.
            started[name] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        print(f"started {name}", flush=True)
    return started


def wait(started: dict[str, subprocess.Popen[bytes]]) -> int:
    """Until one of them ends, reaping what is left to the first process of a namespace."""
    own = {process.pid: name for name, process in started.items()}
    while True:
        pid, status = os.wait()
        if pid in own:
            print(f"{own[pid]} ended with status {status}", flush=True)
            return 1


def until(condition: Callable[[], object], complaint: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(complaint)
        time.sleep(0.1)


def answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {pki.TOKEN}"})  # noqa: S310
    try:
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - only whether it is up
        with urllib.request.urlopen(request, timeout=5, context=context) as reply:  # noqa: S310
            return bool(reply.read() == b"ok")
    except OSError:
        return False


def ctr(*arguments: str) -> bool:
    argv = ["ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", *arguments]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def call(*argv: str) -> None:
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    sys.exit(main())
