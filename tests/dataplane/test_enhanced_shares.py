# SPDX-License-Identifier: Apache-2.0
"""Priorities and weighted localities: endpoints get the shares that a real Envoy gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.model.http import (
    Forward,
    HashKind,
    HashPolicy,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    WeightedCluster,
)
from tests.dataplane.enhanced_stage import PORT, Stage, table
from tests.dataplane.governed_sides import (
    BACKEND,
    Backend,
    Both,
    Json,
    OfGate,
    ask,
    both_sides,
    cluster,
    group,
    install,
    until,
)
from tests.dataplane.world import VIP4, chi_square

pytestmark = pytest.mark.root
REQUESTS = 600
USERS = 200  # so many that each endpoint has some, and that they part when it goes
FAR = 40.0  # of at most three degrees of freedom: once in 10^8


@dataclass(frozen=True)
class World:
    """Groups of endpoints by their names, which are letters; capitals are sick. What each gets, in percent."""

    groups: Sequence[str]
    shares: Mapping[str, float]
    about: Sequence[Json]  # of each group
    panic: int = 0
    weighted: bool = False


def priorities(*groups: str, **shares: float) -> World:
    return World(groups, shares, [{"priority": number} for number in range(len(groups))])


def localities(*groups: tuple[str, int], panic: int = 0, **shares: float) -> World:
    about = [
        {"locality": {"zone": str(number)}, "load_balancing_weight": weight}
        for number, (_, weight) in enumerate(groups)
    ]
    return World([names for names, _ in groups], shares, about, panic=panic, weighted=True)


WORLDS = {
    "the-first-while-it-can": priorities("abC", "d", a=47, b=46, d=7),
    "the-rest-of-what-it-cannot": priorities("aB", "c", a=70, c=30),
    "the-next-where-none-is-left": priorities("AB", "cd", "e", c=50, d=50),
    "nobody": priorities("A", "B"),
    "in-panic-by-size": World(
        ("A", "Bc"), {"A": 34, "B": 33, "c": 33}, [{"priority": 0}, {"priority": 1}], panic=60
    ),
    "no-panic-where-another-can": World(
        ("A", "bC"), {"b": 100}, [{"priority": 0}, {"priority": 1}], panic=50
    ),
    "localities-by-weight": localities(("a", 1), ("bc", 3), a=25, b=37.5, c=37.5),
    "a-locality-that-lacks-some": localities(("aB", 1), ("c", 1), a=41.18, c=58.82),
    "no-localities-in-panic": localities(
        ("aB", 1), ("CD", 9), panic=50, a=25, B=25, C=25, D=25
    ),
}  # fmt: skip


def resource(name: str, servers: Backend, world: World) -> Json:
    groups = []
    for names, about in zip(world.groups, world.about, strict=True):
        ports = {one: servers.start(one) for one in names}
        sick = [port for one, port in ports.items() if one.isupper()]
        groups.append(group(*ports.values(), sick=sick, **about))
    return cluster(name, groups, panic=world.panic, weighted=world.weighted)


@pytest.fixture(scope="module")
def both(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, shared_stage: Stage
) -> Iterator[Both]:
    with both_sides(
        shared_stage,
        checkout / ".venv/bin/envoy",
        tmp_path_factory.mktemp("envoy"),
        WORLDS,
        lambda name, servers: resource(name, servers, WORLDS[name]),
    ) as sides:
        yield sides


@pytest.mark.parametrize("name", WORLDS)
def test_shares_are_envoys(both: Both, name: str) -> None:
    shares = WORLDS[name].shares
    for side, servers in both(name):
        answers = ask(side, *[f"/{name}/status/200"] * REQUESTS)
        assert set(answers) == ({"200"} if shares else {"nobody"}), side
        served = servers.served()
        assert served.keys() == shares.keys(), side
        expected = {one: round(100 * share) for one, share in shares.items()}
        assert not shares or chi_square(served, expected) < FAR, (side, served)


OUTLIER = {"consecutive_5xx": 3, "max_ejection_percent": 100, "base_ejection_time": "300s"}


def test_the_next_priority_serves_while_the_first_is_ejected(shared_stage: Stage) -> None:
    side = OfGate(shared_stage)
    servers = Backend(shared_stage.world.agent(script=BACKEND), "failover")
    ports = [servers.start("a"), servers.start("b")]
    groups = [group(ports[0]), group(ports[1], priority=1)]
    install(shared_stage, [cluster("failover", groups, outlier=OUTLIER)])
    ask(side, *["/failover/status/500"] * 3)
    until(side, "out", 1)
    assert set(ask(side, *["/failover/status/200"] * 10)) == {"200"}
    assert servers.served() == {"a": 3, "b": 10}


def test_who_is_ejected_loses_only_its_own_keys(shared_stage: Stage) -> None:
    side = OfGate(shared_stage)
    servers = Backend(shared_stage.world.agent(script=BACKEND), "keys")
    ports = [servers.start(name) for name in "abcd"]
    install(shared_stage, [cluster("keys", ports, outlier=OUTLIER, lb_policy="MAGLEV")])
    action = Forward((WeightedCluster("keys"),), (HashPolicy(kind=HashKind.HEADER, name="x-user"),))
    match = RouteMatch(PathMatch(PathKind.PREFIX, "/"))
    shared_stage.route(table(Route(match=match, action=action)))
    number = shared_stage.client("connect", VIP4, PORT)

    def goes_to(user: int, status: int = 200) -> str:
        headers = {"headers": f"x-user: {user}\r\n"}
        answer = shared_stage.client("ask", number, f"/keys/status/{status}", headers)
        return str(answer[1]).split()[-1]

    before = [goes_to(user) for user in range(USERS)]
    assert set(before) == set("abcd")
    assert [goes_to(user) for user in range(USERS)] == before
    for _ in range(3):
        goes_to(0, 500)
    until(side, "out", 1)
    after = [goes_to(user) for user in range(USERS)]
    assert before[0] not in after
    assert all(one == other for one, other in zip(before, after, strict=True) if one != before[0])
    moved = {other for one, other in zip(before, after, strict=True) if one == before[0]}
    assert len(moved) > 1
