# SPDX-License-Identifier: Apache-2.0
"""How the kernel chooses among a cluster's endpoints, in words: for questions, changing nothing."""

from __future__ import annotations

from runtime.tables.enhanced_layout import Cluster, ClusterKey
from runtime.tables.http_ports import ANY, LESS_BUSY
from runtime.tables.lookup import Tables


def less_busy(choices: int) -> str:
    """Least request, of so many that are drawn."""
    numbers = {2: "two", 3: "three", 4: "four"}
    return f"the least busy of {numbers.get(choices, choices)}; shares are those while none is busy"


def choosing(tables: Tables, number: int) -> tuple[str, ...]:
    """What shares of a cluster do not tell; nothing where its endpoints have turns, or it has none."""
    value = tables.lookup("clusters", ClusterKey(number).pack())
    cluster = Cluster.unpack(value) if value else None
    if cluster is None or not cluster.total:
        return ()
    if cluster.flags & LESS_BUSY and cluster.counts[0] == cluster.total:
        return (less_busy(2),)
    if cluster.flags & LESS_BUSY:
        return ("by weight, the less the busier; shares are those while none is busy",)
    return ("any of them",) if cluster.flags & ANY else ()
