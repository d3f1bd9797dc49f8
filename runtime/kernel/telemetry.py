# SPDX-License-Identifier: Apache-2.0
"""Telemetry in the kernel: its programs and its ring buffer, pinned beside a path's.

    <pins>/telemetry/<digest of the layout>/<map>
    <pins>/telemetry/sockets/...                    which connections are followed
    <pins>/telemetry/links/...                      as the data path's

The ring buffer outlives the daemon: what happened while there was none is read by the next, as far
as there was room. Connections that an earlier version followed are told of by the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import BpfObject, Program
from runtime.kernel import features
from runtime.kernel.bpffs import PINS
from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.datapath import LINKS, remove_pins
from runtime.kernel.links import Links
from runtime.kernel.percpu import total
from runtime.kernel.programs import ObjectsError, digest_of
from runtime.kernel.sockets import SOCKETS, forget_others, socket_pin
from runtime.tables.describe import describe
from runtime.tables.telemetry_layout import DIGEST, SOCKET_DIGESTS

GROUP = "telemetry"
OBJECT = Path(GROUP) / "telemetry.bpf.o"
_TABLES = ("events", "lost")
_FOLLOWING = "following"
_PROGRAM, _PROGRAM_NETNS = "kmesh_telemetry", "kmesh_telemetry_netns"
_CGROUP, _NETNS = "cgroup", "netns"


class Observer:
    """The loaded programs and their maps; use `open`.

    The caller holds the lock of the pins (`DataPath.open` takes it).
    """

    def __init__(self, opened: BpfObject, *, home: Path) -> None:
        self._object: BpfObject | None = opened
        self._home = home
        self._tables = home / DIGEST[:16]
        self._links = Links(home / LINKS)

    @classmethod
    def open(
        cls,
        objects: Path,
        *,
        pins: Path = PINS,
        path: str = "compat",
        ring_bytes: int | None = None,
    ) -> Observer:
        """Load the programs over what is pinned, or anew, and put them where others run already.

        Args:
            objects: the directory that holds `telemetry/telemetry.bpf.o`.
            pins: where the data path of that name is open.
            path: the data path, whose maps tell which service a connection is for.
            ring_bytes: the size of a new ring buffer, a power of two of at least a page.

        Raises:
            ObjectsError: the object is missing or of another version.
            LoadError: the kernel refused it.
            BpfError: the data path's maps are not there, or the kernel refused to attach.
        """
        file = objects / OBJECT
        if not file.is_file() or not _is_ours(file):
            hint = "run `make bpf`, or reinstall"
            raise ObjectsError(f"{file} is missing or of another version", hint=hint)
        opened = BpfObject(file)
        try:
            self = cls(opened, home=pins / GROUP)
            self._load(opened, pins / path, ring_bytes)
            self._links.prune()
            for scope in self._links.scopes():
                self._links.turn_over(scope, self._programs(scope.kind))
            self._forget_others()
        except BaseException:
            opened.close()
            raise
        return self

    def _load(self, opened: BpfObject, path: Path, ring_bytes: int | None) -> None:
        for directory in (self._tables, self._home / SOCKETS):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        pins = {name: self._tables / name for name in _TABLES}
        pins[_FOLLOWING] = socket_pin(self._home, _FOLLOWING, SOCKET_DIGESTS)
        reused = {name: pin for name, pin in pins.items() if pin.exists()}
        reused["managed_netns"] = path / digest_of(path.name)[:16] / "managed_netns"
        reused["peers"] = socket_pin(path, "peers", SOCKET_DIGESTS)
        for name, pin in reused.items():
            pinned = BpfMap.pinned(pin)
            opened.reuse_map(name, pinned.fd)  # it takes a descriptor of its own
            pinned.close()
        if ring_bytes and "events" not in reused:
            opened.set_max_entries("events", ring_bytes)
        opened.set_autoload(_PROGRAM_NETNS, load=features.netns_in_sockops())
        opened.load()
        for name in pins.keys() - reused.keys():
            opened.maps()[name].pin(pins[name])

    def _programs(self, kind: str) -> list[Program]:
        name = _PROGRAM_NETNS if kind == _NETNS else _PROGRAM
        program = self._open.programs()[name]
        return [program] if program.fd >= 0 else []

    def _forget_others(self) -> None:
        for other in list(self._home.iterdir()):
            if other not in (self._tables, self._home / LINKS, self._home / SOCKETS):
                remove_pins(other)
        forget_others(self._home, [socket_pin(self._home, _FOLLOWING, SOCKET_DIGESTS)])

    @property
    def _open(self) -> BpfObject:
        assert self._object is not None, "telemetry is closed"
        return self._object

    @property
    def events(self) -> BpfMap:
        """The ring buffer, which holds structs kmesh_tcp_event."""
        return self._open.maps()["events"]

    def lost(self) -> int:
        """Events that there was no room for, since the ring buffer was made."""
        return total(self._open.maps()["lost"], 0)

    def enroll_cgroup(self, path: Path) -> None:
        """Follow the connections of a cgroup's processes, and of those below it. Idempotent.

        Raises:
            CgroupError: there is no such cgroup.
            BpfError: the kernel refused.
        """
        self._links.attach(_CGROUP, path, self._programs(_CGROUP))

    def release_cgroup(self, path: Path) -> None:
        """Follow no new connections of a cgroup; nothing happens when it is not enrolled."""
        self._links.release(_CGROUP, path)

    def match(self, cgroups: Iterable[Path]) -> None:
        """Follow these cgroups and no others: those that the data path found enrolled."""
        wanted = set(cgroups)
        for cgroup in set(self.cgroups) - wanted:
            self.release_cgroup(cgroup)
        for cgroup in wanted - set(self.cgroups):
            self.enroll_cgroup(cgroup)

    @property
    def cgroups(self) -> list[Path]:
        """The cgroups that are followed."""
        return self._links.cgroups(_CGROUP)

    def follow_namespaces(self, *, follow: bool) -> bool:
        """Follow the network namespaces that the data path manages, or no longer.

        Returns:
            whether they are followed; never before kernel 5.15.
        """
        programs = self._programs(_NETNS)
        if follow and programs:
            self._links.attach(_NETNS, cgroup2_root(), programs)
            return True
        self._links.release(_NETNS, cgroup2_root())
        return False

    def close(self) -> None:
        """Let go; what is pinned works on. Idempotent."""
        if self._object is not None:
            self._object.close()
            self._object = None

    def destroy(self) -> None:
        """Detach and remove everything. Idempotent."""
        self.close()
        remove(self._home.parent)


def _is_ours(file: Path) -> bool:
    found = describe([file])
    return (found.digest, found.socket_digests) == (DIGEST, SOCKET_DIGESTS)


def remove(pins: Path) -> bool:
    """Detach telemetry and take away what is pinned, whoever left it.

    Returns:
        whether there was anything.
    """
    home = pins / GROUP
    if not home.is_dir():
        return False
    for scope in Links(home / LINKS).scopes():
        scope.remove()
    remove_pins(home)
    return True
