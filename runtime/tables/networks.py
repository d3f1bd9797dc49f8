# SPDX-License-Identifier: Apache-2.0
"""Workloads in other networks: how many there are, and why they get no connections.

They are reached through their network's gateway only, which takes connections within HBONE (mutual
TLS and HTTP/2 CONNECT, twice over): the kernel does not speak that, and sending anything else there
would fail later and darker. So they are no endpoints, and each such network is a problem by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from runtime.model.mesh import NamespacedHostname, Workload
from runtime.tables.place import Place
from runtime.tables.problems import Problems

_TOPIC = "gateway"


def gateway(workload: Workload) -> str:
    """Its network's gateway as people write it; "" where none is known."""
    known = workload.network_gateway
    if known is None:
        return ""
    where = known.destination
    name = where if isinstance(where, NamespacedHostname) else where.address
    return f"{name} port {known.port}"


class OtherNetworks:
    """Counts the workloads of each network that is not this node's.

    Args:
        place: this node.
        problems: where each network is reported.
    """

    def __init__(self, *, place: Place, problems: Problems) -> None:
        self._place = place
        self._problems = problems
        self._behind: dict[str, Counter[str]] = {}  # gateways, by network
        self._changed: set[str] = set()

    def _is_other(self, workload: Workload | None) -> bool:
        return (
            workload is not None
            and self._place.network is not None
            and workload.network != self._place.network
            and bool(workload.services)
        )

    def move(self, before: Workload | None, after: Workload | None) -> None:
        """One workload changed."""
        for workload, number in ((before, -1), (after, 1)):
            if workload is not None and self._is_other(workload):
                self._behind.setdefault(workload.network, Counter())[gateway(workload)] += number
                self._changed.add(workload.network)

    def relocate(self, place: Place, workloads: Iterable[Workload]) -> None:
        """This node turns out to be elsewhere."""
        self._place = place
        self._changed |= self._behind.keys()
        self._behind = {}
        for workload in workloads:
            self.move(None, workload)

    def flush(self) -> None:
        """Report what changed."""
        for network in self._changed:
            found = +self._behind.get(network, Counter())
            name = f"network {network or '(the default one)'}"
            self._problems.clear(name, _TOPIC)
            if found:
                gateways = ", ".join(sorted(filter(None, found)))
                behind = f"the gateway {gateways}" if gateways else "a gateway that is not known"
                reason = (
                    f"{found.total()} of its workloads get no connections from here: they are "
                    f"behind {behind}, which takes HBONE, and this data path does not speak it"
                )
                self._problems.add(name, _TOPIC, reason)
            else:
                self._behind.pop(network, None)
        self._changed = set()
