# SPDX-License-Identifier: Apache-2.0
"""A gate that has few connections to endpoints to give: what nobody uses makes room, and nobody gets a 503."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from runtime.compile.gate import SANITIZE, compile_gate
from runtime.launch.gate import running
from runtime.model.http import CircuitBreakers, Cluster, Endpoints, HttpEndpoint, OutlierDetection
from runtime.tables.enhanced_layout import Upstream
from runtime.tables.http_govern import govern
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.test_enhanced_handover import another_version, is_gone
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root
NUMBERS = 8
POOLS = 5
CLUSTER = Cluster(
    name="slow",
    panic_percent=0,
    breakers=CircuitBreakers(max_requests=100),
    outlier=OutlierDetection(consecutive_5xx=1, max_ejection_percent=100),
)
NAMES = "abcd"
FILES = 24  # descriptors that it may have beyond those that it has


@pytest.fixture(scope="module")
def few(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate with few numbers."""
    if not shutil.which("gcc"):
        pytest.skip("there is no compiler to make it")
    target = tmp_path_factory.mktemp("few") / "kmesh-gate"
    options = [*SANITIZE, "-O1", f"-DGATE_UPSTREAMS={NUMBERS}", f"-DGATE_POOLS={POOLS}"]
    return compile_gate(checkout, target, options=options)


@pytest.fixture(scope="module")
def shared_stage(all_objects: Path, few: Path) -> Iterator[Stage]:
    with Stage(all_objects, few) as made:
        yield made


@pytest.fixture
def four(stage: Stage) -> Stage:
    stage.serve(*NAMES)
    stage.route(table(*(to(f"/{name}", name) for name in NAMES)))
    return stage


def _ask_all(stage: Stage, number: int, times: int = 1) -> None:
    for name in NAMES * times:
        assert stage.client("ask", number, f"/{name}")[:2] == [200, name]


def _held_by_clients(stage: Stage, count: int) -> list[int]:
    """Clients who have the kernel keep their connections to all endpoints."""
    clients = [int(stage.client("connect", VIP4, PORT)) for _ in range(count)]
    for number in clients:
        before = stage.taken()
        _ask_all(stage, number, 3)
        assert stage.taken() > before
    return clients


def test_what_the_kernel_keeps_for_some_makes_room_for_others(four: Stage) -> None:
    clients = _held_by_clients(four, NUMBERS // len(NAMES))
    assert four.status()["idle"] == NUMBERS
    for _ in range(2):
        clients.append(int(four.client("connect", VIP4, PORT)))
        _ask_all(four, clients[-1])
    for number in clients:
        _ask_all(four, number)
    status = four.status()
    assert status["ended_early"] > 0
    assert status["idle"] <= NUMBERS


def test_what_is_idle_makes_room_at_once(four: Stage) -> None:
    for n in range(2 * NUMBERS):
        four.serve(f"one{n}")
    four.route(table(*(to(f"/{n}/", f"one{n}") for n in range(2 * NUMBERS))))
    before = four.status()["ended_early"]
    assert four.ask([f"/{n}/" for n in range(2 * NUMBERS)]) == [
        f"one{n}" for n in range(2 * NUMBERS)
    ]
    assert four.status()["ended_early"] == before + NUMBERS


@pytest.mark.parametrize("governed", [False, True])
def test_more_requests_at_once_than_numbers(four: Stage, *, governed: bool) -> None:
    """They wait for those before them; that is no failure of the endpoint's."""
    port = four.backend("serve", "127.0.0.1", "slow")
    found = HttpEndpoint(address=IPv4Address("127.0.0.1"), port=port)
    rules = govern(CLUSTER, Endpoints(name="slow", endpoints=(found,))) if governed else None
    four.ports.set_cluster("slow", [Target(found.address, port)], governed=rules)
    four.route(table(to("/slow", "slow")))
    clients = [four.client("connect", VIP4, PORT) for _ in range(2 * NUMBERS)]
    for number in clients:
        four.client("send", number, "GET /slow/slow/0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: four.status()["waiting"] > 0, "some wait")
    four.client("abort", clients.pop())
    for number in clients:
        assert four.client("read", number)[:2] == [200, "slow"]
    status = four.status()
    assert status["waiting"] == status["ejected"] == 0
    assert status["governed"] == governed


def test_who_waits_in_vain_is_told_why(four: Stage) -> None:
    agents = [four.agent(four.cgroup) for _ in range(NUMBERS)]
    for agent in agents:
        number = agent("connect", VIP4, PORT)
        agent("send", number, "GET /a/slow/8 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: four.status()["busy"] == NUMBERS, "all are in use")
    number = four.client("connect", VIP4, PORT)
    assert four.client("ask", number, "/b")[:2] == [503, "the gate can have no more connections"]


def test_more_endpoints_than_the_kernel_may_know(stage: Stage) -> None:
    """Those that came too late are served by the gate, and it says that there are such."""
    names = "abcdefgh"[: POOLS + 1]
    stage.serve(*names)
    stage.route(table(*(to(f"/{name}", name) for name in names)))
    number, refused = stage.client("connect", VIP4, PORT), stage.status()["pools_full"]
    for name in names:
        for _ in range(3):
            assert stage.client("ask", number, f"/{name}")[:2] == [200, name]
    assert stage.status()["pools_full"] == refused + 1
    before = stage.taken()
    assert stage.client("ask", number, "/a")[:2] == [200, "a"]
    assert stage.taken() == before + 1
    assert stage.client("ask", number, f"/{names[-1]}")[:2] == [200, names[-1]]
    assert stage.taken() == before + 1


def test_descriptors_run_out(four: Stage) -> None:
    """Sessions take them from upstreams: those of the oldest go."""
    pid = running(four.place)
    assert pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = len(list(Path(f"/proc/{pid}/fd").iterdir())) + FILES
    early = four.status()["ended_early"]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        clients = _held_by_clients(four, NUMBERS // len(NAMES))
        clients += [int(four.client("connect", VIP4, PORT)) for _ in range(FILES - 4)]
        for number in clients:
            assert four.client("ask", number, "/a")[:2] == [200, "a"]
        assert four.status()["ended_early"] > early
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_two_gates_that_dial_at_once_have_numbers_of_their_own(four: Stage, tmp_path: Path) -> None:
    """Both begin with the same one, as each has just been started."""
    another_version(four, tmp_path)
    old = four.start_gate()
    (tmp_path_of_next := tmp_path / "other").mkdir()
    clients, ports = [], [four.backend("crowded", "127.0.0.1") for _ in "12"]
    for number, port in enumerate(ports):
        if number:
            another_version(four, tmp_path_of_next)
            assert four.start_gate() != old
        four.ports.set_cluster("a", [Target("127.0.0.1", port)])
        clients.append(four.client("connect", VIP4, PORT))
        four.client("send", clients[-1], "GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: four.status()["busy"] == 1, "it dials")
    for port in ports:
        four.backend("let_in", port)
    wait_for(lambda: _established(four) == 2, "each has its own")
    for number in clients:
        four.client("abort", number)
    wait_for(lambda: is_gone(old), "the old gate ends")
    wait_for(lambda: _given(four) == 0, "both numbers are free again")


def _established(stage: Stage) -> int:
    return sum(one.cookie != 0 for one in _numbers(stage))


def _given(stage: Stage) -> int:
    return sum(one.used for one in _numbers(stage))


def _numbers(stage: Stage) -> list[Upstream]:
    return [Upstream.unpack(value) for _, value in stage.path.maps["gate_upstreams"].items()]
