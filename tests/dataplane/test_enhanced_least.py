# SPDX-License-Identifier: Apache-2.0
"""Least request: who has much to do gets less, as with a real Envoy, and no count stays behind."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from runtime.launch.gate import running
from runtime.model.http import Balancer
from runtime.tables.enhanced_layout import Pool
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_ledger import take
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.governed_sides import (
    BACKEND,
    Backend,
    Both,
    Json,
    OfGate,
    ask,
    both_sides,
    cluster,
)
from tests.dataplane.test_enhanced_handover import another_version, is_gone
from tests.dataplane.test_enhanced_storm import meanwhile
from tests.dataplane.world import VIP4, chi_square, end_agent, wait_for

pytestmark = pytest.mark.root
REQUESTS = 500
FAR = 30.0  # of three degrees of freedom or fewer: once in 700,000


@dataclass(frozen=True)
class World:
    """Endpoints by their weights, and how many requests one of them has while others are sent."""

    weights: Sequence[int]
    held: int = 1


WORLDS = {
    "two": World((1, 1)),
    "four": World((1, 1, 1, 1)),
    "weights": World((1, 2, 1)),
    "nothing-held": World((1, 1, 1), held=0),
}


def expected(world: World, busy: str) -> Mapping[str, int]:
    """Of 10,000 requests, as Envoy documents it (load_balancers, weighted least request)."""
    names = "abcd"[: len(world.weights)]
    weights = dict(zip(names, world.weights, strict=True))
    if len(set(world.weights)) > 1:
        shares = {one: weights[one] / (1 + world.held * (one == busy)) for one in names}
        return {one: round(10000 * n / sum(shares.values())) for one, n in shares.items()}
    count = len(names)
    less = 1 / count**2 if world.held else 1 / count  # drawn twice
    rest = (1 - less) / (count - 1)
    return {one: round(10000 * (less if one == busy else rest)) for one in names}


def resource(name: str, servers: Backend) -> Json:
    weights = WORLDS[name].weights
    groups = []
    for server, weight in zip("abcd", weights, strict=False):
        made = cluster("x", [servers.start(server)])["load_assignment"]["endpoints"][0]
        made["lb_endpoints"][0]["load_balancing_weight"] = weight
        groups.append(made)
    endpoints = [each for made in groups for each in made["lb_endpoints"]]
    return cluster(name, [{"lb_endpoints": endpoints}], lb_policy="LEAST_REQUEST")


@pytest.fixture(scope="module")
def both(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, shared_stage: Stage
) -> Iterator[Both]:
    with both_sides(
        shared_stage,
        checkout / ".venv/bin/envoy",
        tmp_path_factory.mktemp("envoy"),
        WORLDS,
        resource,
        by_gate=False,
    ) as sides:
        yield sides


@pytest.mark.parametrize("name", WORLDS)
def test_shares_are_envoys(both: Both, shared_stage: Stage, name: str) -> None:
    world = WORLDS[name]
    for side, servers in both(name):
        numbers = []
        for _ in range(world.held):
            numbers.append(side.connect())
            side.send(numbers[-1], f"/{name}/hold/{servers.key('one')}")
        wait_for(lambda: sum(servers.served().values()) == world.held, "they have come")  # noqa: B023
        before = Counter(servers.served())
        (busy,) = before or ("",)
        taken = shared_stage.taken()
        assert set(ask(side, *[f"/{name}/status/200"] * REQUESTS)) == {"200"}
        taken = shared_stage.taken() - taken
        served = Counter(servers.served()) - before
        servers.release("one")
        assert [side.read(number) for number in numbers] == ["200"] * world.held
        assert chi_square(served, expected(world, busy)) < FAR, (side, busy, served)
        if isinstance(side, OfGate):
            assert taken > REQUESTS * 0.9


def under_way(stage: Stage) -> list[int]:
    """Of each endpoint that the kernel knows, where there are any."""
    maps = stage.path.maps
    values = (maps["pools"].lookup(number) for _, number in maps["pool_numbers"].items())
    return [count for value in values if value and (count := Pool.unpack(value).busy)]


def at_rest(stage: Stage) -> None:
    wait_for(lambda: under_way(stage) == [], f"nothing is counted: {under_way(stage)}")


@pytest.fixture
def servers(stage: Stage) -> Backend:
    agent = stage.world.agent(stage.backends, script=BACKEND)
    stage.agents.append(agent)
    return Backend(agent, "least")


def point(stage: Stage, servers: Backend, *names: str, balancer: Balancer) -> None:
    """Have a cluster `x` be these servers."""
    targets = [Target("127.0.0.1", servers.start(name)) for name in names]
    stage.ports.set_cluster("x", targets, balancer=balancer)
    stage.route(table(to("/", "x")))


@pytest.mark.parametrize("balancer", [Balancer.LEAST_REQUEST, Balancer.ROUND_ROBIN])
def test_who_is_slow_gets_less(stage: Stage, servers: Backend, balancer: Balancer) -> None:
    point(stage, servers, "slow", "b", "c", "d", balancer=balancer)
    before = stage.taken()
    total, by = stage.client("load", VIP4, PORT, ["/x/status/200"], 6, 3)
    assert total > 60
    slow = by["least slow"] / total
    if balancer is Balancer.ROUND_ROBIN:
        assert 0.17 < slow < 0.29
    else:
        assert slow < 0.13  # one in sixteen, where it is never idle
    # Each connection's first may come before the gate has it, and each endpoint's are dialled.
    assert stage.taken() - before > total - 40
    at_rest(stage)


def test_any_endpoint_may_have_the_next_request(stage: Stage, servers: Backend) -> None:
    """Random is not by turns."""
    point(stage, servers, "a", "b", "c", balancer=Balancer.RANDOM)
    number = stage.client("connect", VIP4, PORT)
    answers = [stage.client("ask", number, "/x/status/200")[1] for _ in range(60)]
    assert len(set(answers)) == 3
    assert answers[3:] != answers[:-3]  # by chance once in 3^57
    assert any(one == other for one, other in pairwise(answers))


def counted_until_answered(stage: Stage) -> int:
    """Requests that the kernel sends, one after the other: how many, whose responses may go home."""
    ports = [stage.backend("serve", "127.0.0.1", name) for name in "ab"]
    targets = [Target("127.0.0.1", port) for port in ports]
    stage.ports.set_cluster("x", targets, balancer=Balancer.LEAST_REQUEST)
    stage.route(table(to("/", "x")))
    number, times = stage.client("connect", VIP4, PORT), 4
    for _ in range(6):
        assert stage.client("ask", number, "/x")[0] == 200
    taken = stage.taken()
    for _ in range(times):
        stage.client("send", number, "GET /x/slow/0.4 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert under_way(stage) == [1]
        assert stage.client("read", number)[0] == 200
        assert under_way(stage) == []  # at once: nobody had to put it right
    assert stage.taken() == taken + times
    return times


def test_a_request_is_counted_until_its_response_has_come(stage: Stage) -> None:
    counted_until_answered(stage)


def hold(stage: Stage, servers: Backend, count: int) -> list[int]:
    """So many requests, each at an endpoint that does not answer; half of them sent by the kernel."""
    numbers: list[int] = []
    for _ in range(count):
        number = stage.client("connect", VIP4, PORT)
        assert stage.client("ask", number, "/x/status/200")[0] == 200
        assert stage.client("ask", number, "/x/status/200")[0] == 200
        body = "Content-Length: 1\r\n" * (len(numbers) % 2)
        target = f"/x/hold/{servers.key('one')}"
        # The second half of a message comes late: it is the gate's to send.
        stage.client("send", number, f"GET {target} HTTP/1.1\r\nHost: x\r\n{body}\r\n")
        if body:
            stage.client("send", number, "1")
        numbers.append(number)
    wait_for(lambda: sum(under_way(stage)) == count, f"{count} are counted: {under_way(stage)}")
    return numbers


@pytest.fixture
def held(stage: Stage, servers: Backend) -> list[int]:
    point(stage, servers, "a", "b", balancer=Balancer.LEAST_REQUEST)
    # Each endpoint has an idle connection, too, which a next gate gets.
    idle = stage.client("connect", VIP4, PORT)
    assert {stage.client("ask", idle, "/x/status/200")[1] for _ in range(4)} == {
        "least a",
        "least b",
    }
    before = stage.taken()
    numbers = hold(stage, servers, 8)
    assert stage.taken() > before + 4
    assert max(under_way(stage)) < 8
    return numbers


def answered(stage: Stage, servers: Backend, numbers: list[int]) -> None:
    servers.release("one")
    assert [stage.client("read", number)[0] for number in numbers] == [200] * 8


def left(stage: Stage, servers: Backend, numbers: list[int]) -> None:
    for number in numbers:
        stage.client("abort", number)


def endpoints_end(stage: Stage, servers: Backend, numbers: list[int]) -> None:
    """Nobody has an answer but 503."""
    end_agent(stage.agents.pop())
    assert [stage.client("read", number)[0] for number in numbers] == [503] * 8


def killed(stage: Stage, servers: Backend, numbers: list[int]) -> None:
    old = running(stage.place)
    assert old
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: is_gone(old), "it is dead")
    stage.start_gate()
    assert not any(Pool.unpack(value).busy for _, value in stage.path.maps["pools"].items())


@pytest.mark.parametrize("end", [answered, left, endpoints_end, killed])
def test_nothing_is_counted_when_all_is_over(
    stage: Stage,
    servers: Backend,
    held: list[int],
    end: Callable[[Stage, Backend, list[int]], None],
) -> None:
    end(stage, servers, held)
    at_rest(stage)


def old_one_killed(stage: Stage, _servers: Backend, _numbers: list[int]) -> None:
    old = next(pid for pid in gates_of(stage) if pid != running(stage.place))
    os.kill(old, signal.SIGKILL)


def gates_of(stage: Stage) -> list[int]:
    found = (stage.place.cgroup / "cgroup.procs").read_text(encoding="ascii").split()
    return [int(one) for one in found]


@pytest.mark.parametrize("end", [answered, old_one_killed])
def test_a_count_goes_over_to_the_next_gate(
    stage: Stage,
    servers: Backend,
    held: list[int],
    tmp_path: Path,
    end: Callable[[Stage, Backend, list[int]], None],
) -> None:
    """What is under way comes to its end in the old one, or with it."""
    before, old = under_way(stage), running(stage.place)
    assert old
    another_version(stage, tmp_path)
    stage.start_gate()
    assert not is_gone(old)
    assert under_way(stage) == before
    end(stage, servers, held)
    wait_for(lambda: is_gone(old), "the old gate has ended")
    at_rest(stage)
    assert set(stage.ask(["/x/status/200"] * 10)) == {"least a", "least b"}
    at_rest(stage)


def test_an_upgrade_counts_until_it_ends(stage: Stage) -> None:
    port = stage.backend("serve", "127.0.0.1", "a")
    stage.ports.set_cluster("x", [Target("127.0.0.1", port)], balancer=Balancer.LEAST_REQUEST)
    stage.route(table(to("/", "x")))
    number = stage.client("connect", VIP4, PORT)
    head = "GET /x/upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
    stage.client("send", number, head)
    assert "101" in stage.client("head", number)
    assert under_way(stage) == [1]
    stage.client("abort", number)
    at_rest(stage)


@pytest.mark.parametrize("wrong", [7, -7])
def test_a_wrong_count_is_put_right(
    stage: Stage, servers: Backend, held: list[int], wrong: int
) -> None:
    """Wherever it came from, and while requests are under way."""
    before = under_way(stage)
    pools = stage.path.maps["pools"]
    key, value = next((k, Pool.unpack(v)) for k, v in pools.items() if Pool.unpack(v).busy)
    pools.update(key, value._replace(busy=(value.busy + wrong) % 2**32).pack())
    assert under_way(stage) != before
    wait_for(lambda: under_way(stage) == before, "it is right")
    answered(stage, servers, held)
    at_rest(stage)


def test_a_storm_leaves_no_count(stage: Stage) -> None:
    for name in "ab":
        ports = [stage.backend("serve", "127.0.0.1", name) for _ in range(3)]
        targets = [Target("127.0.0.1", port) for port in ports]
        stage.ports.set_cluster(name, targets, balancer=Balancer.LEAST_REQUEST)
    stage.route()
    leaver = stage.agent(stage.cgroup)

    def leave() -> None:
        number = leaver("connect", VIP4, PORT)
        leaver("ask", number, "/a/x")
        leaver("send", number, "GET /a/slow/0.05 HTTP/1.1\r\nHost: x\r\n\r\n")
        leaver("abort", number)

    before = stage.taken()
    with meanwhile(leave):
        assert stage.client("storm", VIP4, PORT, 900, 16, 30, 20_000) == []
    assert stage.taken() > before + 50
    at_rest(stage)
    assert take(stage).under_way == 0
