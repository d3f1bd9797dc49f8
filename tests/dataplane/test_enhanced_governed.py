# SPDX-License-Identifier: Apache-2.0
"""Circuit breakers and outlier detection: the same requests get from the gate what a real Envoy gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.dataplane.enhanced_stage import Stage
from tests.dataplane.governed_sides import (
    Backend,
    Both,
    Json,
    Side,
    ask,
    both_sides,
    cluster,
    until,
)
from tests.dataplane.world import wait_for

pytestmark = pytest.mark.root
OFTEN = {"consecutive_5xx": 3, "max_ejection_percent": 100, "base_ejection_time": "300s"}


@dataclass(frozen=True)
class Case:
    """What is done, with how many endpoints, and how their cluster is configured."""

    does: Callable[[Side, Backend, str], object]
    config: Mapping[str, Any]
    endpoints: int = 1


CASES: dict[str, Case] = {}


def case(endpoints: int = 1, **config: Any) -> Callable[..., None]:
    def add(does: Callable[[Side, Backend, str], object]) -> None:
        name = does.__name__.strip("_").replace("_", "-")
        CASES[name] = Case(does, config, endpoints)

    return add


def hold(side: Side, servers: Backend, at: str, key: str) -> int:
    """A request that has reached its endpoint, which does not answer."""
    number, target = side.connect(), f"{at}/hold/{servers.key(key)}"
    side.send(number, target)
    wait_for(lambda: target in servers.counts(), f"{key} has come", seconds=60)
    return number


@case(breakers={"max_connections": 1, "max_pending_requests": 1})
def _one_waits_for_the_connection(side: Side, servers: Backend, at: str) -> object:
    first = hold(side, servers, at, "one")
    second = side.connect()
    side.send(second, f"{at}/status/201")
    until(side, "pending", 1)
    third = ask(side, f"{at}/status/202")
    servers.release("one")
    found = [side.read(first), side.read(second), *third]
    until(side, "pending", 0)
    return found, servers.accepted, side.seen()


@case(breakers={"max_connections": 1, "max_pending_requests": 2})
def _who_leaves_makes_room(side: Side, servers: Backend, at: str) -> object:
    first = hold(side, servers, at, "one")
    waiting = [side.connect() for _ in range(2)]
    for number in waiting:
        side.send(number, f"{at}/status/201")
    until(side, "pending", 2)
    full = ask(side, f"{at}/status/202")
    side.leave(waiting[0])
    until(side, "pending", 1)
    late = side.connect()
    side.send(late, f"{at}/status/203")
    until(side, "pending", 2)
    servers.release("one")
    found = [side.read(number) for number in (first, waiting[1], late)]
    return full, found, servers.accepted, side.seen()["refused"]


@case(breakers={"max_requests": 2})
def _no_more_requests_than_that(side: Side, servers: Backend, at: str) -> object:
    held = [hold(side, servers, at, key) for key in ("one", "two")]
    over = ask(side, f"{at}/status/200", f"{at}/status/200")
    servers.release("one")
    found = [side.read(held[0])]
    found += ask(side, f"{at}/status/201")
    servers.release("two")
    return over, found, side.read(held[1]), side.seen()


@case(breakers={"max_pending_requests": 0})
def _nobody_may_wait_for_a_new_connection(side: Side, servers: Backend, at: str) -> object:
    return ask(side, f"{at}/status/200", f"{at}/status/200"), side.seen()


@case(max_requests_per_connection=2)
def _a_connection_serves_so_many(side: Side, servers: Backend, at: str) -> object:
    return ask(side, *[f"{at}/status/200"] * 5), servers.accepted


@case(endpoints=2, breakers={"max_connections": 1})
def _each_endpoint_has_one_connection_all_the_same(side: Side, servers: Backend, at: str) -> object:
    held = [hold(side, servers, at, key) for key in ("one", "two")]
    third = side.connect()
    side.send(third, f"{at}/status/201")
    until(side, "pending", 1)
    servers.release("one")
    servers.release("two")
    return [side.read(one) for one in (*held, third)], servers.accepted


@case(breakers={"max_connections": 1})
def _who_waits_is_served_when_the_connection_is_lost(
    side: Side, servers: Backend, at: str
) -> object:
    first = hold(side, servers, at, "one")
    second = side.connect()
    side.send(second, f"{at}/status/201")
    until(side, "pending", 1)
    side.leave(first)
    return side.read(second), servers.accepted


def failing(side: Side, at: str, *statuses: int) -> list[str]:
    return ask(side, *(f"{at}/status/{one}" for one in statuses))


@case(outlier=OFTEN)
def _so_many_5xx_in_a_row(side: Side, servers: Backend, at: str) -> object:
    found = failing(side, at, 500, 501, 200, 500, 599, 404, 500, 503)
    assert side.seen()["ejected 5xx"] == 0
    found += failing(side, at, 504)
    until(side, "ejected 5xx", 1)
    return found, failing(side, at, 200, 200), side.seen()


@case(outlier=OFTEN | {"consecutive_5xx": 100, "consecutive_gateway_failure": 2,
                       "enforcing_consecutive_gateway_failure": 100})  # fmt: skip
def _so_many_gateway_failures_in_a_row(side: Side, servers: Backend, at: str) -> object:
    found = failing(side, at, 502, 500, 503, 501, 504, 200, 502)
    assert side.seen()["ejected gateway"] == 0
    found += failing(side, at, 503)
    until(side, "ejected gateway", 1)
    return found, failing(side, at, 200), side.seen()


@case(outlier=OFTEN, panic=50)
def _in_panic_the_ejected_are_used(side: Side, servers: Backend, at: str) -> object:
    found = failing(side, at, 500, 500, 500)
    until(side, "out", 1)
    return found + failing(side, at, 500, 500, 500, 500, 200), side.seen()


@case(endpoints=2, outlier=OFTEN | {"consecutive_5xx": 2, "max_ejection_percent": 50})
def _not_more_than_a_share_are_ejected(side: Side, servers: Backend, at: str) -> object:
    found = failing(side, at, 500, 500, 500)
    until(side, "ejected 5xx", 1)
    found += failing(side, at, 500)
    until(side, "ejected refused", 1)
    before = servers.served()
    found += failing(side, at, 200, 200, 200, 200)
    more = [servers.served()[name] - count for name, count in before.items()]
    return found, sorted(more), side.seen()


@case(endpoints=9, outlier=OFTEN | {"consecutive_5xx": 1, "max_ejection_percent": 10})
def _ten_percent_of_nine_is_nobody(side: Side, servers: Backend, at: str) -> object:
    found = failing(side, at, 500)
    until(side, "ejected refused", 1)
    return found, side.seen()


@case(endpoints=9, outlier=OFTEN | {"consecutive_5xx": 1, "max_ejection_percent": 10,
                                    "always_eject_one_host": True})  # fmt: skip
def _but_one_always_may_be(side: Side, servers: Backend, at: str) -> object:
    found = failing(side, at, 500)
    until(side, "ejected 5xx", 1)
    found += failing(side, at, 500)
    until(side, "ejected refused", 1)
    return found, side.seen()


@case(outlier=OFTEN)
def _a_connection_that_ends_before_the_response(side: Side, servers: Backend, at: str) -> object:
    found = [ask(side, f"{at}/die")[0] for _ in range(3)]
    until(side, "ejected 5xx", 1)
    return found, failing(side, at, 200), side.seen()


@case(outlier=OFTEN | {"consecutive_5xx": 1, "consecutive_local_origin_failure": 2,
                       "split_external_local_origin_errors": True,
                       "enforcing_local_origin_success_rate": 0})  # fmt: skip
def _told_apart_from_responses(side: Side, servers: Backend, at: str) -> object:
    found = [ask(side, f"{at}/die")[0], *failing(side, at, 200), ask(side, f"{at}/die")[0]]
    assert side.seen()["out"] == 0
    found += ask(side, f"{at}/die")
    # Each of the two had reached the endpoint first, which ends a row.
    return found, failing(side, at, 200), side.seen()


@case(outlier=OFTEN | {"consecutive_5xx": 6})
def _connections_that_are_refused(side: Side, servers: Backend, at: str) -> object:
    servers.stop("e0")
    found = ask(side, f"{at}/status/200") + ask(side, f"{at}/status/200")
    until(side, "ejected 5xx", 1)
    return found, ask(side, f"{at}/status/200"), side.seen()


@case(outlier=OFTEN | {"consecutive_local_origin_failure": 6, "consecutive_5xx": 1,
                       "split_external_local_origin_errors": True,
                       "enforcing_local_origin_success_rate": 0})  # fmt: skip
def _connections_that_are_refused_told_apart(side: Side, servers: Backend, at: str) -> object:
    servers.stop("e0")
    found = ask(side, f"{at}/status/200") + ask(side, f"{at}/status/200")
    until(side, "ejected local", 1)
    return found, ask(side, f"{at}/status/200"), side.seen()


@case(outlier=OFTEN | {"consecutive_5xx": 1, "base_ejection_time": "0.5s"})
def _who_was_out_comes_back(side: Side, servers: Backend, at: str) -> object:
    found = failing(side, at, 500)
    until(side, "out", 1)
    found += failing(side, at, 200)
    # Envoy tells its worker thread of it after it has counted it.
    wait_for(lambda: failing(side, at, 200) == ["200"], "it is used again", seconds=60)
    return found + failing(side, at, 200, 404), side.seen()


def resource(name: str, servers: Backend) -> Json:
    one = CASES[name]
    ports = [servers.start(f"e{number}") for number in range(one.endpoints)]
    return cluster(name, ports, **one.config)


@pytest.fixture(scope="module")
def both(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, shared_stage: Stage
) -> Iterator[Both]:
    """For a case: the gate and an Envoy, each with endpoints of its own."""
    with both_sides(
        shared_stage,
        checkout / ".venv/bin/envoy",
        tmp_path_factory.mktemp("envoy"),
        CASES,
        resource,
    ) as sides:
        yield sides


@pytest.mark.parametrize("name", CASES)
def test_the_gate_answers_as_envoy_does(both: Both, name: str) -> None:
    (gate, mine), (oracle, its) = both(name)
    theirs = CASES[name].does(oracle, its, f"/{name}")
    ours = CASES[name].does(gate, mine, f"/{name}")
    assert ours == theirs
