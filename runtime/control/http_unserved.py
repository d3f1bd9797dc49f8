# SPDX-License-Identifier: Apache-2.0
"""Routes that nobody serves, as they take a waypoint and there is none: each is logged once, with its reason."""

from __future__ import annotations

from collections.abc import Collection

from runtime import log
from runtime.control.http_standing import PortKey, RouteAt, Standings
from runtime.tables.http_texts import reason_in, reason_text

_LINES = 10  # at a time
_log = log.get("control")


class Unserved:
    """Remembers what it has logged, as long as it is so."""

    def __init__(self) -> None:
        self._told: set[tuple[PortKey, RouteAt, str]] = set()

    def tell(self, standings: Standings, without: Collection[PortKey]) -> None:
        """Log what is new.

        Args:
            standings: what became of the tables.
            without: those that some port follows for which there is no waypoint.
        """
        now = {
            (key, at, why)
            for key in without
            if key in standings and not standings[key].shut  # that is told by itself
            for at, why in standings[key].waypoint.items()
        }
        new = sorted(now - self._told)
        for (_, table), (host, number), why in new[:_LINES]:
            _log.warning(
                "route %d of %s in route table %s gets 503: it takes a waypoint, and there is none: %s",
                number,
                host,
                table,
                reason_in(reason_text(why)),
            )
        if len(new) > _LINES:
            _log.warning("and %d more routes: `kmeshctl routes` lists them", len(new) - _LINES)
        self._told = now
