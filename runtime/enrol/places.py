# SPDX-License-Identifier: Apache-2.0
"""Where a pod is in the kernel: its network namespace, and its control group where that tells pods apart.

The namespace is told by the CNI plugin, or found by the pod's addresses: among those that the container
runtime keeps below /run/netns (containerd and CRI-O do), then among those of processes. That takes no
word of the runtime's, so that any will do.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from runtime import log
from runtime.kernel.cgroup import CgroupError, cgroup2_root, is_hybrid
from runtime.kernel.netns import NetnsError, enter_netns_at, netns_cookie
from runtime.model.mesh import IPAddress

KEPT = Path("/run/netns")
_DEEPEST = 6  # kubelet.slice/kubelet-kubepods.slice/…-burstable.slice/…-pod….slice and one to spare

_log = log.get("enrol")


@dataclass(frozen=True, slots=True)
class Place:
    """A pod's network namespace, by file, inode and cookie; and its control group, if that counts."""

    netns: Path
    inode: int
    cookie: int
    cgroup: Path | None = None


def place_at(
    netns: Path, *, cgroup: Path | None, cookie_of: Callable[[Path], int] = netns_cookie
) -> Place:
    """The place with a namespace that is known.

    Raises:
        NetnsError: there is no such namespace, or it has no cookie.
    """
    try:
        inode = netns.stat().st_ino
    except OSError as error:
        raise NetnsError(f"network namespace {netns}: {error.strerror}") from error
    return Place(netns, inode, cookie_of(netns), cgroup)


class Namespaces:
    """The network namespaces of this node by the addresses in them.

    Args:
        kept: the directory in which runtimes keep them.
        processes: procfs.
    """

    def __init__(self, kept: Path = KEPT, processes: Path = Path("/proc")) -> None:
        self._kept = kept
        self._processes = processes
        self._denied = False

    def find(self, wanted: Iterable[frozenset[IPAddress]]) -> dict[frozenset[IPAddress], Path]:
        """The namespaces that have all of some addresses; what is not found is not in the result."""
        left, found = set(wanted), {}
        seen = {_inode(Path("/proc/self/ns/net"))}  # the node's own
        for path in (*self._kept_ones(), *self._of_processes()):
            if not left:
                break
            inode = _inode(path)
            if inode is None or inode in seen:
                continue
            seen.add(inode)
            there = addresses_in(path)
            for addresses in [each for each in left if each and each <= there]:
                found[addresses] = path
                left.discard(addresses)
        return found

    def _kept_ones(self) -> list[Path]:
        try:
            return sorted(self._kept.iterdir())
        except OSError:
            return []

    def _of_processes(self) -> Iterator[Path]:
        for entry in self._processes.iterdir():
            if entry.name.isdigit():
                yield entry / "ns" / "net"


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:  # its process has ended, or may not be looked at
        return None


def addresses_in(netns: Path) -> frozenset[IPAddress]:
    """The addresses of a network namespace; none when it cannot be entered."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(_read_addresses, netns).result()


def _read_addresses(netns: Path) -> frozenset[IPAddress]:
    """Runs in a thread of its own, which stays there."""
    try:
        enter_netns_at(netns)
    except OSError as error:
        _log.debug("cannot look into %s: %s", netns, error)
        return frozenset()
    here = Path(f"/proc/self/task/{threading.get_native_id()}/net")
    return frozenset({*_ipv4(here / "fib_trie"), *_ipv6(here / "if_inet6")})


def _ipv4(table: Path) -> Iterator[IPAddress]:
    """Leaves of the local table: an address on a line, and `/32 host LOCAL` on the next."""
    try:
        text = table.read_text(encoding="ascii")
    except OSError:
        return
    for address in re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", text):
        yield IPv4Address(address)


def _ipv6(table: Path) -> Iterator[IPAddress]:
    """One address a line, 32 hexadecimal digits first (net/ipv6/addrconf.c); no file without IPv6."""
    try:
        text = table.read_text(encoding="ascii")
    except OSError:
        return
    for line in text.splitlines():
        yield IPv6Address(int(line.split()[0], 16))


_POD_CGROUP = re.compile(r"(^|-)pod[0-9a-f]{8}")


def is_pod(cgroup: Path) -> bool:
    """Whether it is where the kubelet puts a pod."""
    return bool(_POD_CGROUP.search(cgroup.name)) and "kubepods" in str(cgroup.parent)


class PodCgroups:
    """The control groups of pods in the version 2 hierarchy.

    Named by the kubelet's driver: `kubepods/burstable/pod<uid>` (cgroupfs), or
    `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice` (systemd, dashes of the
    uid as underscores); guaranteed pods have no middle level, and either may lie below another cgroup.

    Args:
        root: of the hierarchy.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._parents: set[Path] = set()

    @classmethod
    def of_this_node(cls) -> PodCgroups | None:
        """None where pods are told apart by namespace: version 1 controllers hold their processes."""
        try:
            return None if is_hybrid() else cls(cgroup2_root())
        except CgroupError:
            return None

    def find(self, uid: str) -> Path | None:
        """The control group of a pod; None when there is none yet."""
        names = re.compile(
            rf"(?:.*-)?pod(?:{re.escape(uid)}|{re.escape(uid.replace('-', '_'))}\.slice)$"
        )
        for parent in list(self._parents):
            if found := _child(parent, names):
                return found
        for parent in _below_kubepods(self._root):
            if found := _child(parent, names):
                self._parents.add(parent)
                return found
        return None


def _child(parent: Path, names: re.Pattern[str]) -> Path | None:
    return next((entry for entry in _directories(parent) if names.match(entry.name)), None)


def _below_kubepods(root: Path, *, depth: int = 0, inside: bool = False) -> Iterator[Path]:
    """Every level that may have pods in it; pods' own cgroups are not entered."""
    inside = inside or (depth > 0 and "kubepods" in root.name)
    if inside:
        yield root
    if depth < _DEEPEST:
        for entry in _directories(root):
            if not _POD_CGROUP.search(entry.name):
                yield from _below_kubepods(entry, depth=depth + 1, inside=inside)


def _directories(parent: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir()]
    except OSError:
        return []
