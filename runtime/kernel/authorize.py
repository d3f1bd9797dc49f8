# SPDX-License-Identifier: Apache-2.0
"""Authorization in the kernel: its program, its maps, and the network namespaces it guards.

All of it is pinned below one directory, beside the data path's:

    <pins>/authorize/<digest of the layout>/<map>
    <pins>/authorize/netns/<inode>                  a link to a network namespace

The program is attached to a namespace by a link that does not keep the namespace alive; a link
whose namespace is gone does nothing, and is removed when it is met.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from runtime.bpf.attach import AttachType, Link
from runtime.bpf.info import LoadedProgram, loaded_program
from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import BpfObject
from runtime.kernel.apply import ApplyError, apply_ops
from runtime.kernel.bpffs import PINS, ensure_bpffs, release_bpffs
from runtime.kernel.datapath import remove_pins
from runtime.kernel.programs import ObjectsError
from runtime.tables.describe import describe
from runtime.tables.ops import Op
from runtime.tables.policies import TABLES, Contents
from runtime.tables.policy_layout import DIGEST, Guard, Hit, HitKey
from runtime.tables.policy_set import NO_TERM_ALLOWS, Flag

GROUP = "authorize"
_PROGRAM = "kmesh_authorize_tcp"
_LINKS = "netns"


class Hits(NamedTuple):
    """How often a term decided: `policy` is a place in the set's list, from 1 on; 0: none allowed."""

    set: int
    policy: int
    times: int


class Authorizer:
    """The loaded program and its maps; use `open`. What is pinned works on without this process.

    The caller holds the lock of the pins (`DataPath.open` takes it).
    """

    def __init__(self, pins: Path) -> None:
        self._pins = pins
        self._home = pins / GROUP
        self._tables = self._home / DIGEST[:16]
        self._links = self._home / _LINKS
        self._stack = ExitStack()
        self._maps: dict[str, BpfMap] = {}
        self._program = -1
        self._must_turn_over = True

    @staticmethod
    def is_pinned(pins: Path) -> bool:
        """Whether an earlier process left an authorizer there."""
        return (pins / GROUP).is_dir()

    @staticmethod
    def remove(pins: Path) -> None:
        """Detach and remove what an earlier process left, of whatever layout."""
        remove_pins(pins / GROUP)

    @classmethod
    def open(
        cls, objects: Path, *, pins: Path = PINS, sizes: Mapping[str, int] | None = None
    ) -> Authorizer:
        """Load the program over the maps that are pinned, or over new ones.

        Args:
            objects: the directory that holds `authorize/*.bpf.o`.
            pins: a directory for pins, in a BPF file system or where one can be mounted.
            sizes: how many elements maps are to hold that are not there yet.

        Raises:
            BpffsError: there is nowhere to pin.
            ObjectsError: the objects are missing or of another version.
            LoadError: the kernel refused them, with its reason.
        """
        ensure_bpffs(pins)
        self = cls(pins)
        adopts = self._tables.is_dir()
        try:
            self._load(objects / GROUP / "authorize.bpf.o", {} if adopts else sizes or {})
        except BaseException:
            self.close()
            if not adopts:
                remove_pins(self._tables)
                self._remove_if_unused()
            raise
        self._links.mkdir(mode=0o700, exist_ok=True)
        if adopts:
            self._turn_over()
        return self

    def _load(self, path: Path, sizes: Mapping[str, int]) -> None:
        if not path.is_file() or describe([path]).digest != DIGEST:
            raise ObjectsError(
                f"{path} is missing or of another version", hint="run `make bpf`, or reinstall"
            )
        self._tables.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = self._stack.enter_context(BpfObject(path))
        for name in TABLES:
            opened.set_pin_path(name, self._tables / name)
            if name in sizes:
                opened.set_max_entries(name, sizes[name])
        opened.load()
        self._maps = {name: one for name, one in opened.maps().items() if name in TABLES}
        self._program = opened.programs()[_PROGRAM].fd

    # Policies.

    def contents(self) -> Contents:
        """What is in the maps, counters included."""
        return {name: dict(_elements(one)) for name, one in self._maps.items()}

    def apply(self, ops: Sequence[Op]) -> None:
        """Carry operations out, in their order.

        Raises:
            ApplyError: some failed. A destination whose policies did not fit keeps those that it
                had; one that had none refuses everyone.
        """
        try:
            apply_ops(self._maps, ops)
        except ApplyError as error:
            self._close_unguarded(op for op in ops if op.resource in error.failed)
            raise
        self._turn_over()

    def _close_unguarded(self, ops: Iterable[Op]) -> None:
        guards = self._maps["guards"]
        for op in ops:
            if op.table == "guards" and op.value is not None and guards.lookup(op.key) is None:
                number = Guard.unpack(op.value).set
                with suppress(BpfError):  # the map itself is full: the error says so
                    guards.update(op.key, Guard(number, 0, int(Flag.CLOSED)).pack())

    def hits(self) -> list[Hits]:
        """How often each policy decided, or would have, since its set is in the kernel."""
        found: dict[tuple[int, int], int] = {}
        for packed, value in _elements(self._maps["policy_hits"]):
            key, hit = HitKey.unpack(packed), Hit.unpack(value)
            if hit.policy or key.word == NO_TERM_ALLOWS:
                found[key.set, hit.policy] = found.get((key.set, hit.policy), 0) + hit.times
        return [Hits(set_, policy, times) for (set_, policy), times in sorted(found.items())]

    @property
    def program(self) -> LoadedProgram:
        """What the kernel tells of the program."""
        return loaded_program(self._program)

    # Network namespaces.

    def guard_netns(self, path: Path) -> None:
        """Judge connections that arrive in a network namespace. Idempotent.

        Args:
            path: /proc/PID/ns/net or a bind mount of one.

        Raises:
            BpfError: there is no such namespace, or the kernel refused.
        """
        handle = _open_netns(path)
        try:
            pin = self._links / str(os.fstat(handle).st_ino)
            if pin.exists() and not _is_dead(pin):
                return
            pin.unlink(missing_ok=True)
            link = Link.to_netns(self._program, handle, AttachType.SK_LOOKUP)
            try:
                link.pin(pin)
            finally:
                link.close()
        finally:
            os.close(handle)

    def release_netns(self, path: Path) -> None:
        """Judge a namespace no more; nothing happens when it was not guarded."""
        with suppress(FileNotFoundError):
            self.release_inode(path.stat().st_ino)

    def release_inode(self, inode: int) -> None:
        """Judge a namespace no more that may be gone; nothing happens when it was not guarded."""
        (self._links / str(inode)).unlink(missing_ok=True)

    def release_all(self) -> None:
        """Judge nothing any more."""
        for pin in list(self._links.iterdir()):
            pin.unlink()

    @property
    def namespaces(self) -> list[int]:
        """The inodes of the network namespaces that are guarded."""
        return sorted(int(pin.name) for pin in self._links.iterdir() if not _is_dead(pin))

    def _turn_over(self) -> None:
        """Put this process's program in place of those that run, and forget other layouts."""
        if not self._must_turn_over:
            return
        for pin in list(self._links.iterdir()):
            link = Link.pinned(pin)
            try:
                if link.netns:
                    link.update(self._program)
                else:
                    pin.unlink()
            finally:
                link.close()
        for other in self._home.iterdir():
            if other not in (self._tables, self._links):
                remove_pins(other)
        self._must_turn_over = False

    # The end.

    def close(self) -> None:
        """Let go; what is pinned works on. Idempotent."""
        self._stack.close()

    def destroy(self) -> None:
        """Detach and remove everything. Idempotent."""
        remove_pins(self._home)
        self.close()
        self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        with suppress(OSError):
            for directory in (self._home, self._pins):
                if directory.is_dir():
                    directory.rmdir()
        release_bpffs(self._pins)


def _open_netns(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BpfError(f"cannot open the network namespace {path}", error.errno or 0) from error


def _is_dead(pin: Path) -> bool:
    link = Link.pinned(pin)
    try:
        return link.netns == 0
    finally:
        link.close()


def _elements(one: BpfMap) -> Iterable[tuple[bytes, bytes]]:
    """Every element, also where the map cannot be read in batches (tries before 5.13)."""
    try:
        return list(one.items())
    except BpfError:
        pairs = ((key, one.lookup(key)) for key in list(one.keys()))
        return [(key, value) for key, value in pairs if value is not None]
