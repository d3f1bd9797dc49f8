# SPDX-License-Identifier: Apache-2.0
"""A gate on a stage, and what it takes: the compiled objects, and the enhanced path's maps."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ci.bench.stage import CHECKOUT, Stage
from runtime.compile.gate import compile_gate
from runtime.compile.tree import compile_tree
from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.datapath import DataPath
from runtime.kernel.gate import Gate
from runtime.kernel.netns import netns_cookie
from runtime.launch.gate import GatePlace, ensure_gate, running, stop_gate

OBJECTS, PROGRAM = CHECKOUT / "build/all", CHECKOUT / "build/gate/kmesh-gate"


def compile_all() -> None:
    """The objects, with those that no image carries yet, and the gate."""
    compile_tree(CHECKOUT / "bpf", OBJECTS, unshipped=True)
    compile_gate(CHECKOUT, PROGRAM)


def into(cgroup: Path | None) -> list[str]:
    """What runs a command in a cgroup."""
    enter = ["sh", "-c", f'echo 0 > {cgroup}/cgroup.procs; exec "$@"', "sh"]
    return enter if cgroup else []


def start_gate(stage: Stage, stack: ExitStack, path: DataPath, name: str) -> tuple[int, Path]:
    """A gate for the stage's namespace, which ends with `stack`: its process, and its socket."""
    place = GatePlace(
        program=PROGRAM,
        socket=stage.path / f"{name}.sock",
        log=stage.path / f"{name}.log",
        cgroup=cgroup2_root() / f"{stage.name}-gate-{name}",
    )
    stack.callback(stop_gate, path, place)
    ensure_gate(path, place)
    netns = Path("/run/netns") / stage.name
    with Gate(place.socket) as gate:
        gate.add_space(netns_cookie(netns, objects=OBJECTS), netns)
    pid = running(place)
    assert pid
    return pid, place.socket
