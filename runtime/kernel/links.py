# SPDX-License-Identifier: Apache-2.0
"""Where programs run: a directory of pinned links for each enrolled cgroup, and one for the root.

A link attaches a program to one cgroup and everything below it. It lasts as long as its pin, and
its program can be replaced without a moment in which none runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.bpf.attach import Link
from runtime.bpf.objects import Program
from runtime.kernel.cgroup import CgroupError, cgroup_id, open_cgroup

_NOTE = "cgroup"  # a symbolic link to the cgroup: all that a BPF file system can keep of it


@dataclass(frozen=True, slots=True)
class Scope:
    """A cgroup in which programs run; the directory is called `<kind>-<number of the cgroup>`."""

    directory: Path

    @property
    def kind(self) -> str:
        return self.directory.name.partition("-")[0]

    @property
    def cgroup(self) -> Path:
        return (self.directory / _NOTE).readlink()

    @property
    def is_alive(self) -> bool:
        """Whether its cgroup is still there, and still the same one."""
        try:
            return cgroup_id(self.cgroup) == int(self.directory.name.partition("-")[2])
        except (OSError, ValueError, CgroupError):
            return False

    @property
    def programs(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if path.name != _NOTE)

    def remove(self) -> None:
        """Detach everything here; sockets that are open keep their connections."""
        for name in self.programs:
            _detach(self.directory / name)
        (self.directory / _NOTE).unlink(missing_ok=True)
        self.directory.rmdir()


class Links:
    """The scopes below one directory of a BPF file system.

    Args:
        directory: where they are.
        make: make it now, not with the first scope.
    """

    def __init__(self, directory: Path, *, make: bool = True) -> None:
        self._directory = directory
        if make:
            self._make()

    def _make(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def scopes(self) -> list[Scope]:
        if not self._directory.is_dir():
            return []
        return [Scope(path) for path in sorted(self._directory.iterdir())]

    def find(self, kind: str, cgroup: Path) -> Scope | None:
        """The scope of a cgroup, also of one that is gone."""
        for scope in self.scopes():
            if scope.kind == kind and scope.cgroup == cgroup:
                return scope
        return None

    def cgroups(self, kind: str) -> list[Path]:
        """The cgroups that have a scope of a kind."""
        return [scope.cgroup for scope in self.scopes() if scope.kind == kind]

    def release(self, kind: str, cgroup: Path) -> None:
        """Remove the scope of a cgroup; nothing happens where there is none."""
        scope = self.find(kind, cgroup)
        if scope is not None:
            scope.remove()

    def prune(self) -> list[Path]:
        """Remove the scopes of cgroups that are gone."""
        dead = [scope for scope in self.scopes() if not scope.is_alive]
        gone = [scope.cgroup for scope in dead]
        for scope in dead:
            scope.remove()
        return gone

    def attach(self, kind: str, cgroup: Path, programs: Iterable[Program]) -> Scope:
        """Run programs in a cgroup: all of them, or none. What runs there already is replaced.

        Raises:
            CgroupError: there is no such cgroup.
            BpfError: the kernel refused one of them.
        """
        scope = Scope(self._directory / f"{kind}-{cgroup_id(cgroup)}")
        existed = scope.directory.exists()
        self._make()
        scope.directory.mkdir(exist_ok=True, mode=0o700)
        with suppress(FileExistsError):
            (scope.directory / _NOTE).symlink_to(cgroup)
        handle = open_cgroup(cgroup)
        try:
            for program in programs:
                _attach_one(program, handle, scope.directory / program.name)
        except BaseException:
            if not existed:
                scope.remove()
            raise
        finally:
            os.close(handle)
        return scope

    def turn_over(self, scope: Scope, programs: Iterable[Program]) -> None:
        """Have other programs run in a scope, each in its predecessor's place; the rest goes."""
        wanted = {program.name: program for program in programs}
        self.attach(scope.kind, scope.cgroup, wanted.values())
        for name in scope.programs:
            if name not in wanted:
                _detach(scope.directory / name)


def _attach_one(program: Program, cgroup: int, pin: Path) -> None:
    if pin.exists():
        link = Link.pinned(pin)
        try:
            link.update(program.fd)
        finally:
            link.close()
        return
    link = Link.to_cgroup(program.fd, cgroup, program.attach_type)
    try:
        link.pin(pin)
    finally:
        link.close()


def _detach(pin: Path) -> None:
    """End an attachment now: removing the pin alone ends it at some later time."""
    link = Link.pinned(pin)
    try:
        link.detach()
    finally:
        link.close()
    pin.unlink()
