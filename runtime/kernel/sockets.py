# SPDX-License-Identifier: Apache-2.0
"""What sockets carry: the maps that nobody could fill again, so they outlive a change of the tables.

    <home>/sockets/<map>-<digest of its own layout>

A connection's peer, a datagram socket's endpoints, the connections that a waypoint does not know yet:
a new version takes these maps over as they are, whatever else it lays out otherwise. Where it lays
out these themselves otherwise, connections of before keep what their own programs left them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap

SOCKETS = "sockets"


def socket_pin(home: Path, name: str, digests: Mapping[str, str]) -> Path:
    """Where a map of sockets is pinned.

    Args:
        home: the directory of what pins it: a path's, or telemetry's.
        name: the map's name.
        digests: its layout's digest by name (SOCKET_DIGESTS of a layout module).
    """
    return home / SOCKETS / f"{name}-{digests[name][:16]}"


def forget_others(home: Path, keep: Iterable[Path]) -> None:
    """Unpin maps of other layouts, but not those in which sockets still wait for their programs."""
    ours = set(keep)
    directory = home / SOCKETS
    for pin in list(directory.iterdir()) if directory.is_dir() else ():
        if pin not in ours and not _is_waited_in(pin):
            pin.unlink()


def _is_waited_in(pin: Path) -> bool:
    """Whether it is a map of sockets, with some in it: they leave it when they close."""
    opened = BpfMap.pinned(pin)
    try:
        return next(iter(opened.keys()), None) is not None
    except BpfError:  # storage, whose keys are sockets' descriptors
        return False
    finally:
        opened.close()
