# SPDX-License-Identifier: Apache-2.0
"""What is told of how a cluster's endpoints are chosen is what the kernel is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from runtime.model.http import Balancer, Cluster, Endpoints, HttpEndpoint
from runtime.tables.enhanced_layout import Cluster as Row
from runtime.tables.enhanced_layout import ClusterKey
from runtime.tables.http_govern import govern
from runtime.tables.http_ports import ANY, LESS_BUSY, Target, cluster_number, cluster_rows
from runtime.tables.http_turns import choosing, less_busy

NUMBER = cluster_number("c")


@dataclass(frozen=True)
class Held:
    """One cluster, as it is in the kernel."""

    value: bytes

    def lookup(self, table: str, key: bytes) -> bytes | None:
        return self.value if (table, key) == ("clusters", ClusterKey(NUMBER).pack()) else None

    def items(self, _table: str) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


def row(balancer: Balancer, *weights: int) -> bytes:
    targets = [Target("10.0.0.1", 1 + place, weight) for place, weight in enumerate(weights)]
    return cluster_rows("c", targets, balancer)[0]


@pytest.mark.parametrize(
    ("balancer", "flags"),
    [
        (Balancer.ROUND_ROBIN, 0),
        (Balancer.LEAST_REQUEST, LESS_BUSY),
        (Balancer.RANDOM, ANY),
        (Balancer.RING_HASH, 0),
        (Balancer.MAGLEV, 0),
    ],
)
def test_the_kernel_knows_the_policy(balancer: Balancer, flags: int) -> None:
    assert Row.unpack(row(balancer, 1, 1)).flags == flags


@pytest.mark.parametrize("weights", [(1, 1), (7, 7, 7), (100,)])
def test_endpoints_that_weigh_the_same_weigh_one(weights: tuple[int, ...]) -> None:
    made = Row.unpack(row(Balancer.LEAST_REQUEST, *weights))
    assert made.counts[0] == made.total == len(weights)


def test_words() -> None:
    found = {
        name: choosing(Held(row(balancer, *weights)), NUMBER)
        for name, balancer, weights in (
            ("least", Balancer.LEAST_REQUEST, (2, 2)),
            ("weighed", Balancer.LEAST_REQUEST, (2, 3)),
            ("random", Balancer.RANDOM, (1, 1)),
            ("turns", Balancer.ROUND_ROBIN, (1, 1)),
            ("nobody", Balancer.LEAST_REQUEST, ()),
        )
    }
    assert found == {
        "least": ("the least busy of two; shares are those while none is busy",),
        "weighed": ("by weight, the less the busier; shares are those while none is busy",),
        "random": ("any of them",),
        "turns": (),
        "nobody": (),
    }
    assert choosing(Held(row(Balancer.RANDOM, 1)), NUMBER + 1) == ()
    assert less_busy(7).startswith("the least busy of 7;")


@pytest.mark.parametrize(("choices", "by_gate"), [(2, False), (3, True)])
def test_of_more_than_two_the_gate_chooses(choices: int, by_gate: bool) -> None:  # noqa: FBT001
    cluster = Cluster(name="c", balancer=Balancer.LEAST_REQUEST, choices=choices)
    one = HttpEndpoint(address=ip_address("10.0.0.1"), port=80)
    found = govern(cluster, Endpoints(name="c", endpoints=(one,)))
    assert (found is not None) == by_gate
    assert found is None or found.row.choices == choices
