# SPDX-License-Identifier: Apache-2.0
"""The short way home for responses of the enhanced path: within the kernel (bpf/home/home.bpf.c).

It is off unless asked for. What a kernel must do for it: give a verdict program the segments in the
order of the stream, with their numbers; hold back by TCP what it lets through (6.4); count rightly
for FIONREAD what is redirected. Connections made before it is on go on by the gate.
"""

from __future__ import annotations

from pathlib import Path

from runtime.bpf.attach import AttachType, attach_to_map
from runtime.bpf.objects import BpfObject
from runtime.errors import KmeshError
from runtime.kernel.datapath import DataPath

OBJECT = Path("home") / "home.bpf.o"
_PROGRAM = "kmesh_come_home"


def bring_home(path: DataPath, objects: Path) -> None:
    """Let responses of new connections to endpoints go home within the kernel.

    Args:
        path: the enhanced path, open.
        objects: the directory that holds `home/home.bpf.o`.

    Raises:
        KmeshError: there is no such object.
        LoadError: the kernel refused it; responses go by the gate.
    """
    file = objects / OBJECT
    if not file.is_file():
        raise KmeshError(f"no {OBJECT} in {objects}", hint="run `make bpf`")
    with BpfObject(file) as opened:
        for name in opened.maps():
            if name in path.maps:
                opened.reuse_map(name, path.maps[name].fd)
        opened.load()
        path.let_clients_through()
        upstreams = path.maps["upstreams"].fd
        attach_to_map(opened.programs()[_PROGRAM].fd, upstreams, AttachType.SK_SKB_STREAM_VERDICT)


__all__ = ["OBJECT", "bring_home"]
