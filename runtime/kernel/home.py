# SPDX-License-Identifier: Apache-2.0
"""The short way home for responses of the enhanced path: within the kernel (bpf/home/home.bpf.c).

It is off unless asked for. What a kernel must do for it: give a verdict program the segments in the
order of the stream, with their numbers; hold back by TCP what it lets through (6.4); count rightly
for FIONREAD what is redirected. Connections made before it is on go on by the gate.

Nothing of it is pinned: its program is asked for where it is attached, and its switch by its program.
So whichever daemon runs, after whatever end of the one before, can take it away.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.bpf.attach import AttachType, attach_to_map, attached_to_map, detach_from_map
from runtime.bpf.info import maps_of
from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import BpfObject
from runtime.errors import KmeshError
from runtime.kernel import features
from runtime.kernel.datapath import DataPath

OBJECT = Path("home") / "home.bpf.o"
_PROGRAM = "kmesh_come_home"
_SWITCH = "home_switch"
_KIND = AttachType.SK_SKB_STREAM_VERDICT
_ON, _LETS_THROUGH = 1, 2  # the second: clients have a program that they would not have without it
_FIRST, _VALUE = struct.pack("=I", 0), struct.Struct("=I")


def bring_home(path: DataPath, objects: Path) -> None:
    """Let responses of new connections to endpoints go home within the kernel. Idempotent.

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
        features.configure(opened)
        opened.load()
        value = _ON | _program_is_ours(path)
        opened.maps()[_SWITCH].update(_FIRST, _VALUE.pack(value))
        _switch_off(path)  # what an earlier daemon attached, for the sockets that keep it
        path.let_clients_through()
        attach_to_map(opened.programs()[_PROGRAM].fd, path.maps["upstreams"].fd, _KIND)


def send_by_gate(path: DataPath) -> bool:
    """Let every response go by the gate from now on, whoever had them go home. Idempotent.

    Args:
        path: the enhanced path, open.

    Returns:
        whether they went home before.

    Raises:
        BpfError: the kernel refused.
    """
    with _attached(path, "upstreams") as program:
        if program is None:
            return False
        before = _switch_off(path)
        detach_from_map(program, path.maps["upstreams"].fd, _KIND)
    with _attached(path, "clients") as program:
        if program is not None and before & _LETS_THROUGH:
            detach_from_map(program, path.maps["clients"].fd, _KIND)
    return True


def goes_home(path: DataPath) -> bool:
    """Whether responses of new connections to endpoints go home within the kernel."""
    return bool(_switched(path) & _ON)


def _program_is_ours(path: DataPath) -> int:
    """Whether what lets everything through to clients is there for the sake of this alone."""
    with _attached(path, "clients") as program:
        return _LETS_THROUGH if program is None else _switched(path) & _LETS_THROUGH


def _switched(path: DataPath) -> int:
    with _switch(path) as switch:
        return _read(switch)


def _switch_off(path: DataPath) -> int:
    """Have the program that is attached pass everything; what its switch was."""
    with _switch(path) as switch:
        before = _read(switch)
        if switch is not None:
            switch.update(_FIRST, _VALUE.pack(0))
        return before


def _read(switch: BpfMap | None) -> int:
    value = switch.lookup(_FIRST) if switch is not None else None
    return int(_VALUE.unpack(value)[0]) if value else 0


@contextmanager
def _attached(path: DataPath, name: str) -> Iterator[int | None]:
    fd = attached_to_map(path.maps[name].fd, _KIND)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def _switch(path: DataPath) -> Iterator[BpfMap | None]:
    """The switch of the program that new connections to endpoints get, None where they get none."""
    with _attached(path, "upstreams") as program:
        for number in maps_of(program) if program is not None else ():
            found = BpfMap.by_id(number)
            try:
                if found.name == _SWITCH:
                    yield found
                    return
            finally:
                found.close()
    yield None


__all__ = ["OBJECT", "bring_home", "goes_home", "send_by_gate"]
