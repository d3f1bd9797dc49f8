# SPDX-License-Identifier: Apache-2.0
"""Thousands of endpoints of a governed cluster: read, chosen by their shares, ejected, replaced.

What must not depend on how many there are is counted, never timed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from runtime.model.http import Balancer, Cluster, HttpEndpoint, OutlierDetection
from runtime.model.mesh import Locality
from tests.dataplane.world import chi_square
from tests.gate.governed import Governed, endpoint

MANY, PIECE = 5000, 1024  # endpoints, and of those read before anything else is done
SHORT = 100  # entries of the index; of random places hardly ever more than 30 follow each other
OUTLIER = OutlierDetection(
    consecutive_5xx=1, max_ejection_percent=100, interval_ms=1000, base_ejection_ms=4000
)
CLUSTER = Cluster(name="c", panic_percent=0, outlier=OUTLIER)
FAR = 90.0  # of fifteen degrees of freedom: once in 10^12
FAR_OF_MANY = 160.0  # of 54: once in 10^12


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Governed:
    return Governed.compile(tmp_path_factory.mktemp("many") / "govern.so")


def test_each_has_the_share_of_its_weight(gate: Governed) -> None:
    gate.make(CLUSTER, *(endpoint(n, weight=1 + n % 16) for n in range(MANY)))
    total = sum(1 + n % 16 for n in range(MANY))
    for number in (0, 15, 16, 2500, MANY - 1):
        assert gate.code.shim_share(number) == pytest.approx(100 * (1 + number % 16) / total)
    picked = Counter(gate.code.shim_pick() for _ in range(20_000))
    assert len(picked) > MANY * 0.8
    by_weight: Counter[str] = Counter()
    for number, times in picked.items():
        by_weight[str(number % 16)] += times
    weights = Counter(str(n % 16) for n in range(MANY) for _ in range(1 + n % 16))
    assert chi_square(by_weight, weights) < FAR


@pytest.mark.parametrize(
    "where",
    [
        lambda n: HttpEndpoint(address=IPv4Address((127 << 24) + n), port=80),
        lambda n: HttpEndpoint(address=IPv4Address((10 << 24) + (n << 8)), port=80),
        lambda n: HttpEndpoint(address=IPv4Address("10.0.0.1"), port=1000 + n),
        lambda n: HttpEndpoint(address=IPv6Address((0xFD00 << 112) + n), port=80),
        lambda n: HttpEndpoint(address=IPv6Address((0xFD00 << 112) + (n << 64) + 1), port=80),
    ],
    ids=["neighbours", "subnets", "ports", "neighbours of IPv6", "subnets of IPv6"],
)
def test_each_is_found_at_once(gate: Governed, where: Callable[[int], HttpEndpoint]) -> None:
    gate.make(CLUSTER, *map(where, range(MANY)))
    assert all(gate.knows(where(number)) for number in range(0, MANY, 50))
    assert not gate.knows(where(MANY))
    assert gate.code.shim_longest_search() < SHORT


def test_all_are_taken_in_turn(gate: Governed) -> None:
    gate.make(replace(CLUSTER, balancer=Balancer.ROUND_ROBIN), *map(endpoint, range(MANY)))
    first = [gate.code.shim_pick() for _ in range(MANY)]
    assert sorted(first) == list(range(MANY))
    gate.answer(500, endpoint=first[7])
    assert sorted(gate.code.shim_pick() for _ in range(MANY - 1)) == sorted(set(first) - {first[7]})


def test_the_one_with_fewer_requests_of_two(gate: Governed) -> None:
    gate.make(replace(CLUSTER, balancer=Balancer.LEAST_REQUEST), *map(endpoint, range(MANY)))
    for number in range(0, MANY, 2):
        gate.code.shim_use(number, 1)
    busy = sum(gate.code.shim_pick() % 2 == 0 for _ in range(4000))
    assert chi_square({"busy": busy, "free": 4000 - busy}, {"busy": 1, "free": 3}) < FAR


def test_by_weight_the_less_the_busier(gate: Governed) -> None:
    gate.make(
        replace(CLUSTER, balancer=Balancer.LEAST_REQUEST),
        *(endpoint(number, weight=1 + number % 2) for number in range(MANY)),
    )
    for number in range(1, MANY, 2):
        gate.code.shim_use(number, 1)
    busy = sum(gate.code.shim_pick() % 2 for _ in range(4000))
    assert chi_square({"busy": busy, "free": 4000 - busy}, {"busy": 1, "free": 1}) < FAR


def test_localities_and_priorities_that_lie_mixed(gate: Governed) -> None:
    """One in 100 is of each locality; a second priority takes what the first cannot."""
    gate.make(
        replace(CLUSTER, locality_weighted=True),
        *(
            endpoint(
                n,
                priority=n % 2,
                healthy=n % 2 == 1 or n % 20 == 0,  # a tenth of the first, all of the second
                locality=Locality(zone=str(n % 100)),
                locality_weight=1 + n % 100 // 50,
            )
            for n in range(MANY)
        ),
        overprovisioning=100,
    )
    found = [gate.code.shim_share(number) for number in range(MANY)]
    assert sum(found[0::2]) == pytest.approx(10)
    assert sum(found[1::2]) == pytest.approx(90)
    assert found[1] * 2 == pytest.approx(found[51])
    assert all(not found[n] for n in range(0, MANY, 2) if n % 20)
    picked = Counter(str(gate.code.shim_pick() % 100) for _ in range(20_000))
    shares: Counter[str] = Counter()
    for number, share in enumerate(found):
        shares[str(number % 100)] += round(share * 1e6)
    assert chi_square(picked, shares) < FAR_OF_MANY
    assert picked.keys() <= {place for place, share in shares.items() if share}


def test_hundreds_are_ejected_and_come_back(gate: Governed) -> None:
    gate.make(CLUSTER, *(endpoint(n, weight=1 + n % 10) for n in range(MANY)))
    total = MANY // 10 * sum(range(1, 11))
    for number in range(4, MANY, 10):  # they weigh 5
        gate.answer(500, endpoint=number)
        assert gate.code.shim_share(number) == 0
    assert gate.code.shim_share(1) == pytest.approx(100 * 2 / (total * 50 / 55))
    assert all(gate.code.shim_pick() % 10 != 4 for _ in range(5000))
    gate.code.shim_pass(4000)
    assert gate.code.shim_share(4) == pytest.approx(100 * 5 / total)
    gate.code.shim_pass(2000)
    gate.answer(500, endpoint=4)  # it was forgiven in the meantime
    gate.code.shim_pass(4000)
    assert not gate.is_out(4)


def finish(gate: Governed) -> None:
    """Let the loop go on until all is read, never more than a piece at a time."""
    more = True
    gate.code.shim_looked_up()
    while more:
        more = gate.code.shim_round()
        assert gate.code.shim_looked_up() <= PIECE


def test_a_change_is_read_in_pieces_while_the_old_holds(gate: Governed) -> None:
    gate.make(CLUSTER, *map(endpoint, range(MANY)))
    gate.answer(500, endpoint=MANY - 1)
    gate.code.shim_use(MANY - 2, 7)
    gate.code.shim_looked_up()
    gate.write(CLUSTER, *map(endpoint, range(MANY // 2, MANY + MANY // 2)))
    gate.code.shim_ask(0)
    assert gate.code.shim_looked_up() == PIECE
    assert gate.knows(endpoint(0))
    assert not gate.knows(endpoint(MANY))
    finish(gate)
    gate.code.shim_ask(0)
    assert gate.code.shim_looked_up() == 0
    kept = [gate.knows(endpoint(n)) for n in range(MANY + MANY // 2)]
    assert kept == [n >= MANY // 2 for n in range(MANY + MANY // 2)]
    assert gate.is_out(MANY // 2 - 1)
    assert gate.code.shim_share(0) == pytest.approx(100 / (MANY - 1))
    assert all(gate.code.shim_pick() >= 0 for _ in range(2000))


def test_all_namespaces_share_what_was_read(gate: Governed) -> None:
    gate.code.shim_looked_up()
    gate.make(CLUSTER, *(endpoint(n, weight=2) for n in range(MANY)))
    assert gate.code.shim_looked_up() == MANY
    gate.code.shim_ask(1)
    gate.write(
        replace(CLUSTER, max_requests_per_connection=3),
        *(endpoint(n, weight=2) for n in range(MANY)),
    )
    gate.code.shim_ask(0)
    gate.code.shim_ask(1)
    assert gate.code.shim_looked_up() == 0


def test_what_goes_while_it_is_read_is_never_used(gate: Governed) -> None:
    gate.make(CLUSTER, *map(endpoint, range(MANY)))
    gate.write(CLUSTER, *map(endpoint, range(1, MANY)))
    gate.code.shim_ask(0)
    gate.code.shim_hide(PIECE)
    finish(gate)
    gate.code.shim_ask(0)
    assert gate.knows(endpoint(0))
    gate.write(CLUSTER, *map(endpoint, range(2, MANY)))
    gate.code.shim_ask(0)
    finish(gate)
    gate.code.shim_ask(0)
    assert [gate.knows(endpoint(n)) for n in range(3)] == [False, False, True]


def test_after_a_pause_nothing_old_is_used(gate: Governed) -> None:
    gate.make(CLUSTER, *map(endpoint, range(MANY)))
    gate.write(CLUSTER, *map(endpoint, range(1, MANY)))
    gate.code.shim_pass(1000)
    gate.code.shim_ask(0)
    assert not gate.knows(endpoint(0))
    assert all(gate.code.shim_pick() >= 0 for _ in range(1000))
    while gate.code.shim_round():
        pass
