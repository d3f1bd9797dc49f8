# SPDX-License-Identifier: Apache-2.0
"""Same-node acceleration: sockets of one node that talk to each other are short-cut past TCP.

Its programs and maps are pinned beside a path's, below `<pins>/accelerate`, and outlive the daemon.
Maps of other objects than today's are never adopted: their connections are told to go on over TCP,
which every one of them can at any time, and new connections meet in new maps.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from runtime.bpf.attach import AttachType, attach_to_map
from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import BpfObject, Program
from runtime.errors import KmeshError
from runtime.kernel import features
from runtime.kernel.bpffs import PINS
from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.datapath import DataPath
from runtime.kernel.links import Links
from runtime.kernel.percpu import total
from runtime.kernel.sockets import socket_pin
from runtime.tables.layout import DIGEST, SOCKET_DIGESTS

GROUP = "accelerate"
BYPASS = "bypass"  # the group in its place beside the enhanced path
OBJECTS = {GROUP: Path(GROUP) / "accelerate.bpf.o", BYPASS: Path(BYPASS) / "bypass.bpf.o"}
HIGH_WATER = 256 * 1024
_LINKS, _CGROUP, _NETNS, _GATE = "links", "cgroup", "netns", "gate"
_OWN = ("settings", "counters", "announced", "meetings", "sockets", "ends")
_SETTINGS = struct.Struct("=II")  # struct kmesh_accelerate_settings
_FOLLOW = {_CGROUP: "kmesh_follow", _NETNS: "kmesh_follow_netns", _GATE: "kmesh_follow_gate"}
_SHORTEN, _LET_THROUGH = "kmesh_shorten", "kmesh_let_through"
_FIRST = struct.pack("=I", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What was done since the maps were made.

    Attributes:
        paired: connections both ends of which were enrolled.
        shortened: messages that went past TCP.
        held_back: times that a stream went over to TCP, its reader being slow, for one.
        left: bulk streams that became ordinary sockets, for which TCP alone is faster.
        client_blocks: connections of this node left alone, as their client may block.
        server_blocks: connections left alone as their listener may block; some are not this node's.
    """

    paired: int
    shortened: int
    held_back: int
    left: int
    client_blocks: int
    server_blocks: int


class Accelerator:
    """The loaded programs and their maps; use `open`."""

    def __init__(self, opened: BpfObject, *, home: Path, tables: Path) -> None:
        self._object: BpfObject | None = opened
        self._home = home
        self._tables = tables
        self._links = Links(home / _LINKS)

    @classmethod
    def open(
        cls,
        objects: Path,
        *,
        pins: Path = PINS,
        high_water: int = HIGH_WATER,
        enhanced: DataPath | None = None,
    ) -> Accelerator:
        """Load the programs over what is pinned, or anew, and put them where others run already.

        Args:
            objects: the directory that holds `accelerate/accelerate.bpf.o`, or the bypass's.
            pins: a directory of a BPF file system, which its owner keeps locked.
            high_water: bytes that may wait for a reader before its sender is left to TCP.
            enhanced: the enhanced path with its gate, where that path runs: then requests and
                responses of its clients are short-cut too. None beside the compat path.

        Raises:
            KmeshError: there is no such object.
            LoadError: the kernel refused it.
        """
        file = OBJECTS[GROUP if enhanced is None else BYPASS]
        path = objects / file
        if not path.is_file():
            raise KmeshError(f"no {file} in {objects}", hint="run `make bpf`")
        home = pins / "accelerate"
        tables = home / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        opened = BpfObject(path)
        self = cls(opened, home=home, tables=tables)
        try:
            self._load(opened, enhanced.maps if enhanced else {})
            self._retire_others()
            self._set(enabled=True, high_water=high_water)
            self._links.prune()
            for scope in self._links.scopes():
                self._links.turn_over(scope, self._programs(scope.kind))
            if enhanced:
                self._follow_requests(enhanced)
        except BaseException:
            self.close()
            raise
        return self

    def _load(self, opened: BpfObject, beside: Mapping[str, BpfMap]) -> None:
        self._tables.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in opened.maps():
            if name in beside:
                opened.reuse_map(name, beside[name].fd)
        own = [name for name in _OWN if name not in beside]
        adopted = [name for name in own if (self._tables / name).exists()]
        places = [self._tables / name for name in adopted]
        reused = dict(zip(adopted, places, strict=True))
        if not beside:
            reused |= {name: pin for name, pin in self._of_compat().items() if pin.exists()}
        for name, place in reused.items():
            pinned = BpfMap.pinned(place)
            opened.reuse_map(name, pinned.fd)  # it takes a descriptor of its own
            pinned.close()
        if beside:  # connections alone need none
            features.configure(opened)
        opened.set_autoload(_FOLLOW[_NETNS], load=features.netns_in_sockops())
        opened.load()
        maps, programs = opened.maps(), opened.programs()
        sockets = maps["sockets"].fd
        attach_to_map(programs[_SHORTEN].fd, sockets, AttachType.SK_MSG_VERDICT)
        attach_to_map(programs[_LET_THROUGH].fd, sockets, AttachType.SK_SKB_STREAM_VERDICT)
        for name in own:
            if name not in adopted:
                maps[name].pin(self._tables / name)

    def _follow_requests(self, path: DataPath) -> None:
        """Those of the gate's connections to endpoints; what comes home needs its order kept."""
        path.let_clients_through()
        for gate in path.gates:
            self._links.attach(_GATE, gate, self._programs(_GATE))

    def _of_compat(self) -> dict[str, Path]:
        """The compat path's maps that the programs look into (accelerate.h), where pinned."""
        path = self._home.parent / "compat"
        return {
            "peers": socket_pin(path, "peers", SOCKET_DIGESTS),
            "managed_netns": path / DIGEST[:16] / "managed_netns",
        }

    def _programs(self, kind: str) -> list[Program]:
        assert self._object is not None, "acceleration is closed"
        program = self._object.programs().get(_FOLLOW[kind])
        return [program] if program is not None and program.fd >= 0 else []

    def _map(self, name: str) -> BpfMap:
        assert self._object is not None, "acceleration is closed"
        return self._object.maps()[name]

    def _set(self, *, enabled: bool, high_water: int) -> None:
        self._map("settings").update(_FIRST, _SETTINGS.pack(enabled, high_water))

    def _retire_others(self) -> None:
        for other in self._home.iterdir():
            if other not in (self._tables, self._home / _LINKS):
                _retire(other)

    def enroll_cgroup(self, path: Path) -> None:
        """Follow the connections of a cgroup's processes, and of those below it. Idempotent.

        Raises:
            CgroupError: there is no such cgroup.
            BpfError: the kernel refused.
        """
        self._links.attach(_CGROUP, path, self._programs(_CGROUP))

    def release_cgroup(self, path: Path) -> None:
        """Follow no new connections of a cgroup; those that are short-cut stay so."""
        self._links.release(_CGROUP, path)

    @property
    def cgroups(self) -> list[Path]:
        """The cgroups that are enrolled."""
        return self._links.cgroups(_CGROUP)

    def follow_namespaces(self, *, follow: bool) -> bool:
        """Follow the connections of the network namespaces that the data path manages, or no longer.

        Returns:
            whether they are followed; never before kernel 5.15.
        """
        programs = self._programs(_NETNS)
        if follow and programs:
            self._links.attach(_NETNS, cgroup2_root(), programs)
            return True
        self._links.release(_NETNS, cgroup2_root())
        return False

    def counters(self) -> Counters:
        found = self._map("counters")
        names = (field.name for field in fields(Counters))
        return Counters(**{name: total(found, index) for index, name in enumerate(names)})

    def close(self) -> None:
        """Let go; what is pinned works on. Idempotent."""
        if self._object is not None:
            self._object.close()
            self._object = None

    def destroy(self) -> None:
        """Detach and remove everything; connections that are open go on over TCP. Idempotent."""
        self.close()
        remove(self._home.parent)


def remove(pins: Path) -> list[str]:
    """Take away what is pinned, also what a daemon left that was killed.

    Args:
        pins: the directory that acceleration was opened with.

    Returns:
        what was removed, in words; nothing when there was nothing.
    """
    home = pins / "accelerate"
    if not home.is_dir():
        return []
    removed = []
    for scope in Links(home / _LINKS).scopes():
        removed.append(f"acceleration of {scope.cgroup}")
        scope.remove()
    for tables in list(home.iterdir()):
        if tables.name != _LINKS:
            _retire(tables)
            removed.append("maps of acceleration")
    for directory in (home / _LINKS, home):
        directory.rmdir()
    _forget_servers(pins)
    return removed


def _forget_servers(pins: Path) -> None:
    """Have requests to endpoints of this node go over TCP (bpf/include/kmesh/servers.h)."""
    for pin in pins.glob("enhanced/*/servers"):
        servers = BpfMap.pinned(pin)
        for key in list(servers.keys()):
            servers.delete(key)
        servers.close()


def _retire(tables: Path) -> None:
    """Send the connections of these maps over TCP, and forget the maps; open sockets keep them."""
    with suppress(BpfError):
        settings = BpfMap.pinned(tables / "settings")
        settings.update(_FIRST, _SETTINGS.pack(0, 0))
        settings.close()
    for pin in list(tables.iterdir()):
        pin.unlink()
    tables.rmdir()


__all__ = ["BYPASS", "GROUP", "HIGH_WATER", "Accelerator", "Counters", "remove"]
