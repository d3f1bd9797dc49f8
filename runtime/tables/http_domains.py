# SPDX-License-Identifier: Apache-2.0
"""Which virtual host a request's host belongs to: exact, suffix, prefix, any, in this order."""

from __future__ import annotations

from runtime.model.http import RouteTable, TextKind
from runtime.tables.http_union import Union


class Domains:
    """Domains of virtual hosts, of which the closest counts.

    Attributes:
        union: of their patterns; what it finds is for `best`.
    """

    def __init__(self, table: RouteTable) -> None:
        self.union = Union()
        self._found: list[tuple[tuple[int, int], int]] = []  # how close, virtual host
        self._not_itself: dict[int, int] = {}
        for index, host in enumerate(table.virtual_hosts):
            for domain in host.domains:
                self._add(index, domain)

    def _add(self, host: int, domain: str) -> None:
        if domain == "*":
            self._pattern(TextKind.PRESENT, "", (0, 0), host)
        elif domain.startswith("*"):
            self._wildcard(TextKind.SUFFIX, domain[1:], (2, len(domain)), host)
        elif domain.endswith("*"):
            self._wildcard(TextKind.PREFIX, domain[:-1], (1, len(domain)), host)
        else:
            self._pattern(TextKind.EXACT, domain, (3, 0), host)

    def _pattern(self, kind: TextKind, text: str, close: tuple[int, int], host: int) -> int:
        number = len(self._found)
        self._found.append((close, host))
        self.union.add_text(number, kind, text, ignore_case=True)
        return number

    def _wildcard(self, kind: TextKind, text: str, close: tuple[int, int], host: int) -> None:
        """The * stands for one character or more."""
        number = self._pattern(kind, text, close, host)
        self._not_itself[self._pattern(TextKind.EXACT, text, (-1, 0), host)] = number

    def best(self, found: frozenset[int]) -> int | None:
        """The virtual host for a set of patterns that match."""
        gone = {self._not_itself[one] for one in found if one in self._not_itself}
        left = [self._found[one] for one in found - gone]
        close, host = max(left, default=((-1, 0), 0), key=lambda one: one[0])
        return None if close[0] < 0 else host
