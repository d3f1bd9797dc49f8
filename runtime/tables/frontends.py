# SPDX-License-Identifier: Apache-2.0
"""Frontends: which cluster a service's address and port stand for, and whose they are.

Several services may claim one address and port. One of them has it, the same one whatever the order
of the updates was; the others are told, and take over when it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv6Address

from runtime.tables.layout import Frontend, FrontendKey
from runtime.tables.ops import Op
from runtime.tables.problems import Problems

# Orders the claimants of a frontend: the least one has it.
Precedence = Callable[[str], tuple[bool, str]]
Target = tuple[int, int]  # a cluster, and flags


class Frontends:
    """The frontends in the kernel, and those who want them.

    Args:
        installed: what the kernel holds.
        limit: how many it can hold.
        problems: where conflicts and lack of room are reported.
        precedence: orders services.
    """

    def __init__(
        self,
        installed: Mapping[bytes, bytes],
        *,
        limit: int,
        problems: Problems,
        precedence: Precedence,
    ) -> None:
        self._installed = dict(installed)
        self._limit = limit
        self._problems = problems
        self._precedence = precedence
        self._claims: dict[bytes, dict[str, Target | None]] = {}
        self._touched: dict[bytes, str] = {}
        self._wanted: dict[str, dict[bytes, Target | None]] = {}
        self.waiting: set[str] = set()  # services with a frontend that did not fit

    def __len__(self) -> int:
        return len(self._installed)

    @property
    def is_full(self) -> bool:
        return len(self._installed) >= self._limit

    def set(self, service: str, wanted: dict[bytes, Target | None]) -> None:
        """Say which frontends a service wants now, and what they stand for.

        One that stands for None is claimed, so that no other service gets it, but not installed.
        """
        before = self._wanted.pop(service, {})
        for frontend in before.keys() - wanted.keys():
            del self._claims[frontend][service]
            self._problems.clear(service, _topic(frontend))
            self._touched[frontend] = service
        for frontend, target in wanted.items():
            self._claims.setdefault(frontend, {})[service] = target
            self._touched[frontend] = service
        if wanted:
            self._wanted[service] = wanted

    def touch_unclaimed(self) -> None:
        """Have the next flush remove what is in the kernel and nobody's."""
        for frontend in self._installed.keys() - self._claims.keys():
            self._touched[frontend] = ""

    def _winner(self, frontend: bytes) -> tuple[str, Target] | None:
        claims = self._claims.get(frontend)
        if not claims:
            self._claims.pop(frontend, None)
            return None
        first, *losers = sorted(claims, key=self._precedence)
        self._problems.clear(first, _topic(frontend))
        for loser in losers:
            reason = f"{describe(frontend)} belongs to {first}"
            self._problems.add(loser, _topic(frontend), reason)
        target = claims[first]
        return (first, target) if target else None

    def flush(self) -> tuple[list[Op], list[Op]]:
        """What to write, and what to remove: writes come first, so both stand for a while."""
        winners = {frontend: self._winner(frontend) for frontend in self._touched}
        written: list[Op] = []
        for frontend, winner in winners.items():
            if winner is not None:
                written.extend(self._install(frontend, *winner))
        removed = [
            Op("frontends", frontend, None, self._touched[frontend])
            for frontend, winner in winners.items()
            if winner is None and self._installed.pop(frontend, None) is not None
        ]
        self._touched = {}
        return written, removed

    def _install(self, frontend: bytes, service: str, target: Target) -> list[Op]:
        value = Frontend(*target).pack()
        if self._installed.get(frontend) == value:
            return []
        if frontend not in self._installed and self.is_full:
            reason = f"{describe(frontend)} does not fit: the table holds {self._limit}"
            self._problems.add(service, _topic(frontend), reason)
            self.waiting.add(service)
            return []
        self._installed[frontend] = value
        return [Op("frontends", frontend, value, service)]


def _topic(frontend: bytes) -> str:
    return f"frontend {frontend.hex()}"


def describe(frontend: bytes) -> str:
    """A frontend as people write it: 10.96.0.1:80/TCP, [fd00::1]:53/UDP."""
    key = FrontendKey.unpack(frontend)
    address = IPv6Address(key.address)
    host = str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"
    protocol = {6: "TCP", 17: "UDP"}.get(key.protocol, str(key.protocol))
    return f"{host}:{int.from_bytes(key.port, 'big')}/{protocol}"
