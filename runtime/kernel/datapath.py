# SPDX-License-Identifier: Apache-2.0
"""The data path: opened or adopted, told what to do, closed or destroyed."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from runtime.bpf.attach import AttachType, attach_to_map
from runtime.bpf.info import LoadedProgram
from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import Program
from runtime.kernel.apply import apply_ops
from runtime.kernel.bpffs import PINS, BpffsError, ensure_bpffs, release_bpffs
from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.fionread import mend
from runtime.kernel.links import Links, Scope
from runtime.kernel.lock import lock_pins
from runtime.kernel.mounts import mount_of
from runtime.kernel.programs import Programs, digest_of
from runtime.kernel.sockets import SOCKETS
from runtime.kernel.waypoints import WaypointFacts, read_waypoints
from runtime.tables.layout import Netns, NetnsKey
from runtime.tables.ops import Contents, Op

LINKS = "links"
# enum kmesh_gate_counter (bpf/include/kmesh/gate_types.h)
COUNTERS = (
    "taken", "not_idle", "not_whole", "not_routed", "no_upstream", "upstream_full", "no_slot", "paused", "home",
    "shortened", "answered",
)  # fmt: skip
_CGROUP, _NETNS, GATE = "cgroup", "netns", "gate"  # kinds of scopes


class DataPath:
    """Programs, maps and links of one path; use `open`.

    A process that ends, however it ends, leaves all of it working. `close` does the same on
    purpose; `destroy` takes everything away.
    """

    def __init__(self, *, pins: Path, path: str, lock: int) -> None:
        self._pins = pins
        self._path = path
        self._home = pins / path
        self._lock: int | None = lock
        self._programs: Programs | None = None
        self._links = Links(self._home / LINKS, make=False)
        self._must_turn_over = False
        # Tables of another layout go on serving until `turn_over`: more than `apply` brings must be there.
        self.waits = False
        # What is to be there before traffic turns over, and what follows; kept from turning over by an error.
        self.before_turn_over: Callable[[], None] = _nothing
        self.after_turn_over: Callable[[], None] = _nothing
        self.was_serving = False  # before this process opened it
        self.fionread_is_right = True  # on the enhanced path, of clients

    @classmethod
    def open(
        cls,
        objects: Path,
        *,
        pins: Path = PINS,
        path: str = "compat",
        sizes: Mapping[str, int] | None = None,
    ) -> DataPath:
        """Load a path's programs over the tables that are pinned, or over new ones.

        Tables of this version's layout are adopted, and what runs already turns over to the
        programs loaded now. Tables of another layout go on serving until the first `apply`.

        Args:
            objects: the directory that holds `<path>/*.bpf.o`.
            pins: a directory for pins, in a BPF file system or where one can be mounted.
            path: the path's name.
            sizes: how many elements maps are to hold that are not there yet.

        Raises:
            BpffsError: there is nowhere to pin.
            InUseError: another process runs this data path.
            ObjectsError: the objects are missing or of another version.
            LoadError: the kernel refused them, with its reason.
        """
        ensure_bpffs(pins)
        self = cls(pins=pins, path=path, lock=lock_pins(pins))
        try:
            self._start(objects, sizes or {})
        except BaseException as error:
            self.close()
            self._remove_if_unused()
            if isinstance(error, OSError):
                raise BpffsError(f"cannot pin at {pins}: {error.strerror}") from error
            raise
        return self

    def _start(self, objects: Path, sizes: Mapping[str, int]) -> None:
        self.was_serving = bool(self._links.scopes())
        adopts = self._tables.is_dir()
        is_new = not self._home.is_dir()
        self._tables.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._programs = Programs(
                objects, path=self._path, pins=self._tables, home=self._home, sizes=sizes
            )
        except BaseException:
            if is_new:
                remove_pins(self._home)
            elif not adopts:
                remove_pins(self._tables)
            raise
        self._links.prune()
        self._must_turn_over = True
        # With others beside ours a daemon was killed before it had turned over: ours may not be full.
        if (adopts and not self._other_tables()) or not self._links.scopes():
            self._turn_over()
        else:
            self._inherit_namespaces()

    def _inherit_namespaces(self) -> None:
        """Who is managed is not for the source to say: take it from the tables of before."""
        for other in self._other_tables():
            if not (other / "managed_netns").exists():
                continue
            before = BpfMap.pinned(other / "managed_netns")
            for key in before.keys():  # noqa: SIM118 - a map in the kernel, not a dictionary
                self._map("managed_netns").update(key, Netns(0).pack())
            before.close()

    def _other_tables(self) -> list[Path]:
        ours = (self._tables, self._home / LINKS, self._home / SOCKETS)
        return [path for path in self._home.iterdir() if path not in ours]

    @property
    def _tables(self) -> Path:
        return self._home / digest_of(self._path)[:16]

    @property
    def _open(self) -> Programs:
        assert self._programs is not None, "the data path is closed"
        return self._programs

    def _map(self, name: str) -> BpfMap:
        return self._open.maps[name]

    # Tables.

    def contents(self) -> Contents:
        """What is in the service tables, but for the clusters of routes: those are HttpPorts'."""
        return Contents(
            frontends=dict(self._map("frontends").items()),
            clusters=_of_services(self._map("clusters")),
            slots=_of_services(self._map("slots")),
            source_tlvs=dict(self._map("source_tlvs").items()),
        )

    def apply(self, ops: Iterable[Op]) -> None:
        """Carry operations out; the first after a change of layout also turns traffic over, unless that waits.

        Raises:
            ApplyError: some failed, and for which resources; the others are done.
        """
        apply_ops(self._open.maps, ops)
        if not self.waits:
            self._turn_over()

    def turn_over(self) -> None:
        """What these tables are to have is in them: let them serve, if others do still. Idempotent.

        Raises:
            KmeshError: the kernel refused; the next `apply` tries again.
        """
        self.waits = False
        self._turn_over()

    def _turn_over(self) -> None:
        """Put this version's programs in place of those that run, and forget other layouts."""
        if not self._must_turn_over:
            return
        self.before_turn_over()
        for scope in self._links.scopes():
            self._links.turn_over(scope, self._wanted(scope))
        self._open.take_over_sockets()
        if self._path == "enhanced":
            let_through = self._open.by_name("kmesh_let_through")
            self.fionread_is_right = mend(self._map("clients"), let_through)
        for other in self._other_tables():
            remove_pins(other)
        self._must_turn_over = False
        self.after_turn_over()

    @property
    def must_turn_over(self) -> bool:
        """Whether tables of another layout serve still."""
        return self._must_turn_over

    def _wanted(self, scope: Scope) -> list[Program]:
        if scope.kind == GATE:
            return self._open.for_gate()
        return self._open.for_root() if scope.kind == _NETNS else self._open.for_cgroups()

    # Who is managed.

    def enroll_cgroup(self, path: Path) -> None:
        """Manage the processes of a cgroup and of those below it. Idempotent.

        Raises:
            CgroupError: there is no such cgroup.
            BpfError: the kernel refused.
        """
        if not self._serves_already(_CGROUP, path):
            self._links.attach(_CGROUP, path, self._open.for_cgroups())

    def release_cgroup(self, path: Path) -> None:
        """Manage a cgroup no more; nothing happens when it is not enrolled."""
        self._links.release(_CGROUP, path)

    @property
    def cgroups(self) -> list[Path]:
        """The cgroups that are enrolled."""
        return self._links.cgroups(_CGROUP)

    def enroll_netns(self, cookie: int) -> None:
        """Manage the processes of a network namespace, wherever their cgroup is. Idempotent.

        Raises:
            CgroupError: no cgroup2 hierarchy is mounted.
            BpfError: the kernel refused.
        """
        self._map("managed_netns").update(NetnsKey(cookie).pack(), Netns(0).pack())
        if not self._serves_already(_NETNS, cgroup2_root()):
            self._links.attach(_NETNS, cgroup2_root(), self._open.for_root())

    def _serves_already(self, kind: str, cgroup: Path) -> bool:
        """Whether programs of another layout run there, whose tables are full when ours are not."""
        scope = self._links.find(kind, cgroup)
        return self._must_turn_over and scope is not None and scope.is_alive

    def release_netns(self, cookie: int) -> None:
        """Manage a network namespace no more; with the last one the programs go too."""
        self._map("managed_netns").delete(NetnsKey(cookie).pack())
        if not self.namespaces:
            for scope in self._links.scopes():
                if scope.kind == _NETNS:
                    scope.remove()

    # The gate, on the enhanced path.

    @property
    def maps(self) -> Mapping[str, BpfMap]:
        """The path's maps by name, open as long as it is."""
        return self._open.maps

    @property
    def tables(self) -> Path:
        """The directory of the pinned maps, as the gate is told it."""
        return self._tables

    def enroll_gate(self, cgroup: Path) -> None:
        """Follow the connections of the gate, which is alone in its cgroup. Idempotent."""
        self._links.attach(GATE, cgroup, self._open.for_gate())

    @property
    def gates(self) -> list[Path]:
        """The cgroup of the gate, once it is enrolled."""
        return self._links.cgroups(GATE)

    def gate_counters(self) -> dict[str, int]:
        """What became of the messages of clients: `taken`, or why they were passed to the gate."""
        values = self._map("gate_counters").lookup_sums(len(COUNTERS))
        return dict(zip(COUNTERS, values, strict=True))

    def let_clients_through(self) -> None:
        """From now on a program lets everything through to clients, in the order of redirects."""
        let_through = self._open.by_name("kmesh_let_through")
        attach_to_map(let_through.fd, self._map("clients").fd, AttachType.SK_SKB_STREAM_VERDICT)

    def answer_here(self, *, answers: bool) -> None:
        """Have the kernel give answers without an endpoint, to clients that take redirects; or the gate."""
        self._map("answers_here").update(struct.pack("=I", 0), struct.pack("=I", answers))

    def release_gate(self, cgroup: Path) -> None:
        self._links.release(GATE, cgroup)

    @property
    def namespaces(self) -> list[int]:
        """The cookies of the network namespaces that are enrolled, as far as their programs run."""
        if not any(scope.kind == _NETNS for scope in self._links.scopes()):
            return []
        return [NetnsKey.unpack(key).cookie for key, _ in self._map("managed_netns").items()]

    def waypoints(self) -> WaypointFacts:
        """How connections to waypoints fare."""
        return read_waypoints(self._open.maps)

    def programs(self) -> list[LoadedProgram]:
        """What is loaded, and how much work the verifier had with it."""
        return self._open.loaded()

    # The end.

    def close(self) -> None:
        """Let go; what is pinned works on. Idempotent."""
        if self._programs is not None:
            self._programs.close()
            self._programs = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def destroy(self) -> None:
        """Detach and remove everything. Idempotent."""
        for scope in self._links.scopes():
            scope.remove()
        remove_pins(self._home)
        self.close()
        self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        """Remove directories in which nothing is pinned, and our mount when that was all."""
        if mount_of(self._pins).type != "bpf":
            return
        with suppress(OSError):
            ours = (self._tables, self._home / LINKS, self._home / SOCKETS)
            for directory in (*ours, self._home, self._pins):
                if directory.is_dir():
                    directory.rmdir()
        release_bpffs(self._pins)


def _nothing() -> None:
    """Nothing is to be done."""


def _of_services(table: BpfMap) -> dict[bytes, bytes]:
    """Keys begin with the number of a cluster."""
    top = 7 if sys.byteorder == "little" else 0
    return {key: value for key, value in table.items() if not key[top] & 0x80}


def remove_pins(directory: Path) -> None:
    """Unpin everything below a directory, and the directory."""
    if directory.is_dir():
        shutil.rmtree(directory)
