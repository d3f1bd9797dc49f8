# SPDX-License-Identifier: Apache-2.0
"""Asking the source for what managed workloads connect to, for nodes that need little of a large mesh.

The kernel tells of every connection that a managed workload opens, or fails to open. Where it is for
no service that the tables know, the source is asked for its address; what is there comes with the
source's updates, and the next connection is governed. The first one goes as it would have gone without
us: to whatever the cluster's own services make of the address.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from runtime.model.mesh import IPAddress
from runtime.tables.lookup import unpack_address
from runtime.tables.telemetry_layout import TcpFlow
from runtime.telemetry.event import Fields

MOST = 10_000  # addresses that are followed; the one that was needed least lately is let go
_OUTBOUND = 1  # KMESH_OUTBOUND


class OnDemand:
    """The addresses that were asked for.

    Args:
        ask: called once for each address that a workload connected to and no service has.
        release: called for one that is not to be followed any more.
        most: how many are followed.
    """

    def __init__(
        self,
        *,
        ask: Callable[[IPAddress], object],
        release: Callable[[IPAddress], object],
        most: int = MOST,
    ) -> None:
        self._ask = ask
        self._release = release
        self._most = most
        self._asked: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._asked)

    def take(self, events: Sequence[Fields]) -> None:
        """Look at connections, as telemetry hands them on."""
        for event in events:
            flow = TcpFlow.unpack(event[0])
            if flow.direction != _OUTBOUND or any(flow.service):
                continue
            if flow.destination in self._asked:
                self._asked.move_to_end(flow.destination)
                continue
            self._asked[flow.destination] = None
            self._ask(unpack_address(flow.destination))
            if len(self._asked) > self._most:
                oldest, _ = self._asked.popitem(last=False)
                self._release(unpack_address(oldest))
