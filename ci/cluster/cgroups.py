# SPDX-License-Identifier: Apache-2.0
"""The control groups that a node has: the host's as they are, or those of version 2 alone.

On a host whose controllers are version 1's, a node of version 2 alone has a hierarchy without controllers. Nothing
of Kmesh asks for one: what counts is where pods' processes are, and that is the same. What Kubernetes and runc cannot do
without controllers is limiting: the runtime is asked for no limits, by the program below that stands before runc, and
the kubelet, which would set some, leaves pods' groups to it. They are made where and when the kubelet makes them: before
the pod's network (by a program before the plugin `bridge`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOST, VERSION_2 = "host", "v2"
CHOICES = (HOST, VERSION_2)
TOP = Path("/sys/fs/cgroup")
# Where the kubelet's driver `cgroupfs` has pods without requests; below what is removed with the cluster.
PARENT = "/k8s.io/kubepods/besteffort"
_RUNTIME = """#!{python} -SE
import json, os, subprocess, sys
from pathlib import Path
argv = ["runc", *sys.argv[1:]]
if "create" in argv:
    config = Path(argv[argv.index("--bundle") + 1], "config.json")
    spec = json.loads(config.read_text())
    uid = spec["annotations"]["io.kubernetes.cri.sandbox-uid"]
    linux = spec["linux"]
    linux["cgroupsPath"] = f"{parent}/pod{{uid}}/{{Path(linux['cgroupsPath']).name}}"
    linux["resources"] = {{"devices": linux.get("resources", {{}}).get("devices", [])}}
    config.write_text(json.dumps(spec))
if "delete" not in argv:
    os.execvp("runc", argv)
pods = [each.parent for each in Path("{top}{parent}").glob(f"pod*/{{argv[-1]}}")]
status = subprocess.call(argv)
for pod in pods:
    try:
        pod.rmdir()
    except OSError:
        pass  # other containers of the pod are there
sys.exit(status)
"""

_BRIDGE = """#!/bin/sh
uid=$(echo ";$CNI_ARGS;" | sed -n 's/.*;K8S_POD_UID=\\([^;]*\\);.*/\\1/p')
[ "$CNI_COMMAND" != ADD ] || [ -z "$uid" ] || mkdir -p "{top}{parent}/pod$uid" || exit 1
exec "{plugin}"
"""


def mount_version_2() -> None:
    """Have version 2 alone, in a mount namespace of one's own."""
    subprocess.run(["umount", "--recursive", str(TOP)], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(TOP)], check=True)


def write_runtime(target: Path) -> Path:
    """Write the program that puts containers where the kubelet would, and hands on to runc."""
    return _program(target, _RUNTIME.format(python=sys.executable, parent=PARENT, top=TOP))


def make_pods_groups(plugins: Path) -> None:
    """Have a pod's group made before its network is."""
    plugin = plugins / "bridge"
    real = plugin.rename(plugins / "bridge.real")
    _program(plugin, _BRIDGE.format(parent=PARENT, top=TOP, plugin=real))


def _program(target: Path, text: str) -> Path:
    target.write_text(text)
    target.chmod(0o755)
    return target
