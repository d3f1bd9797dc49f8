# SPDX-License-Identifier: Apache-2.0
"""The compiled objects of one path, loaded over one set of pinned maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from runtime.bpf.attach import AttachType, attach_to_map
from runtime.bpf.info import LoadedProgram, loaded_program
from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import BpfObject, Program
from runtime.errors import KmeshError
from runtime.kernel import features
from runtime.kernel.sockets import SOCKETS, forget_others, socket_pin
from runtime.tables import enhanced_layout, layout
from runtime.tables.describe import describe
from runtime.tables.paths import files_of

# Programs that run on a socket map's sockets: the map, and how they are attached to it.
_OF_MAPS = {
    "kmesh_introduce": ("introductions", AttachType.SK_MSG_VERDICT),
    "kmesh_read_request": ("clients", AttachType.SK_MSG_VERDICT),
}
_DIGESTS = {"compat": layout.DIGEST, "enhanced": enhanced_layout.DIGEST}
_SOCKET_DIGESTS: Mapping[str, Mapping[str, str]] = {
    "compat": layout.SOCKET_DIGESTS,
    "enhanced": enhanced_layout.SOCKET_DIGESTS,
}
# Programs that the gate runs: pinned beside the maps that it is told.
_ASKED = ("kmesh_ask_underway",)
_NETNS = "_netns"  # the twin of a program that asks for the network namespace
_GATE = "_gate"  # for the gate's own cgroup
_CGROUP_SECTIONS = ("cgroup/", "sockops")


def digest_of(path: str) -> str:
    """What stands for the layout of a path's maps."""
    return _DIGESTS[path]


class ObjectsError(KmeshError):
    """The objects are not there, or not those that this version of Kmesh writes tables for."""


class Programs:
    """Loaded programs by name, and the maps that they share.

    Args:
        objects: the directory of all objects, by group.
        path: whose objects (runtime/tables/paths.py).
        pins: where its tables are pinned, or are to be.
        home: the path's directory, for what its sockets carry.
        sizes: how many elements a map is to hold, where it is not there yet.

    Raises:
        ObjectsError: no objects, or of another layout.
        LoadError: the kernel refused one.
    """

    def __init__(
        self, objects: Path, *, path: str, pins: Path, home: Path, sizes: Mapping[str, int]
    ) -> None:
        files = files_of(objects, path)
        self._digests = _SOCKET_DIGESTS[path]
        _check(objects / path, files, (digest_of(path), self._digests))
        self._sizes = sizes
        self._tables, self._home = pins, home
        (home / SOCKETS).mkdir(mode=0o700, exist_ok=True)
        self._programs: dict[str, Program] = {}
        self.maps: dict[str, BpfMap] = {}
        with ExitStack() as stack:
            self._stack = stack
            for file in files:
                self._load(stack.enter_context(BpfObject(file)))
            self._stack = stack.pop_all()

    def _pin(self, name: str) -> Path:
        if name in self._digests:
            return socket_pin(self._home, name, self._digests)
        return self._tables / name

    def _pin_anew(self, program: Program) -> None:
        """In one step: a gate may be starting."""
        fresh = self._tables / f"{program.name}_new"
        fresh.unlink(missing_ok=True)
        program.pin(fresh)
        fresh.rename(self._tables / program.name)

    def _load(self, opened: BpfObject) -> None:
        shared = [name for name in opened.maps() if not name.startswith(".")]
        for name in shared:
            if name not in self.maps and self._pin(name).exists():
                self._open_map(name)
            if name in self.maps:
                opened.reuse_map(name, self.maps[name].fd)
            elif name in self._sizes:
                opened.set_max_entries(name, self._sizes[name])
        features.configure(opened)
        opened.load()
        created = opened.maps()
        for name in shared:
            if name not in self.maps:
                created[name].pin(self._pin(name))
                self._open_map(name)
        self._programs.update(opened.programs())
        for name in set(_ASKED).intersection(opened.programs()):
            self._pin_anew(self._programs[name])

    def _open_map(self, name: str) -> None:
        found = self.maps[name] = BpfMap.pinned(self._pin(name))
        self._stack.callback(found.close)

    def for_cgroups(self) -> list[Program]:
        """What runs in a cgroup all of whose processes are managed."""
        return [one for one in self._attached() if not one.name.endswith(_NETNS)]

    def for_root(self) -> list[Program]:
        """What runs in the root cgroup, and manages by network namespace."""
        return [one for one in self._attached() if one.name.endswith(_NETNS)]

    def for_gate(self) -> list[Program]:
        """What runs in the gate's cgroup."""
        return [one for one in self._programs.values() if one.name.endswith(_GATE)]

    def by_name(self, name: str) -> Program:
        return self._programs[name]

    def _attached(self) -> Iterator[Program]:
        """Programs of cgroups; those of socket maps belong to their map."""
        return (
            one
            for one in self._programs.values()
            if one.section.startswith(_CGROUP_SECTIONS) and not one.name.endswith(_GATE)
        )

    def take_over_sockets(self) -> None:
        """Run this version's programs on the sockets of socket maps, and forget other layouts.

        Once the tables are full, as they read them. A program that is attached to a map already
        gives way in one step.
        """
        for name, (table, kind) in _OF_MAPS.items():
            if name in self._programs:
                attach_to_map(self._programs[name].fd, self.maps[table].fd, kind)
        forget_others(self._home, map(self._pin, self._digests))

    def loaded(self) -> list[LoadedProgram]:
        return [loaded_program(one.fd) for one in self._programs.values()]

    def close(self) -> None:
        self._stack.close()


def _check(objects: Path, files: list[Path], digests: tuple[str, Mapping[str, str]]) -> None:
    if not files:
        raise ObjectsError(f"no compiled objects in {objects}", hint="run `make bpf`")
    found = describe(files)
    if (found.digest, found.socket_digests) != digests:
        raise ObjectsError(
            f"the objects in {objects} lay their maps out otherwise than this version of Kmesh",
            hint="objects and program must be of one version: run `make bpf`, or reinstall",
        )
