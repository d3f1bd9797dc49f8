# SPDX-License-Identifier: Apache-2.0
"""Ports with routes that cannot even be said to have any: their connections are refused, in the services' tables.

Else they would be balanced as those of a service without routes. What the services' tables said comes back.
"""

from __future__ import annotations

from collections.abc import Collection

from runtime.bpf.maps import BpfMap
from runtime.tables.enhanced_layout import Frontend
from runtime.tables.http_digest import digest

_TO_WAYPOINT = 1  # KMESH_FRONTEND_WAYPOINT
_NOBODY = Frontend(digest(b"nobody", b""), 0).pack()  # a cluster that is never there


class Refused:
    """What a daemon before this one refused its service tables have overwritten.

    Args:
        frontends: the map of services' addresses.
    """

    def __init__(self, frontends: BpfMap) -> None:
        self._frontends = frontends
        self._before: dict[bytes, bytes] = {}

    def refuse(self, key: bytes) -> bool:
        """Whether connections there are refused now; else they go to a waypoint, or are none of ours.

        Raises:
            BpfError: the kernel refused.
        """
        value = self._frontends.lookup(key)
        if value == _NOBODY:
            return True
        if value is None or Frontend.unpack(value).flags & _TO_WAYPOINT:
            return False
        self._frontends.update(key, _NOBODY)
        self._before[key] = value
        return True

    def admit(self, key: bytes) -> None:
        """The port is routed now."""
        before = self._before.pop(key, None)
        if before is not None and self._frontends.lookup(key) == _NOBODY:
            self._frontends.update(key, before)

    def keep(self, keys: Collection[bytes]) -> None:
        """All other ports have no routes any more."""
        for key in self._before.keys() - set(keys):
            self.admit(key)
