# SPDX-License-Identifier: Apache-2.0
"""Requests and responses that go past TCP, between a client and an endpoint of one node.

Also whatever the other suites find right of the gate's way: the same tests, on a stage whose endpoints
are short-cut (`shared_stage` is this module's).
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from runtime.kernel.accelerate import remove
from runtime.launch.gate import running
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.test_enhanced_faults import (  # noqa: F401 - run here too
    test_a_client_that_leaves_with_a_request_outstanding_takes_its_upstream_along,
    test_an_endpoint_that_ends_before_its_response,
    test_an_endpoint_that_ends_within_its_response_ends_the_clients_connection,
    test_an_idle_connection_that_its_endpoint_closed_is_not_used,
    test_bytes_after_a_response_are_nobodys,
    test_what_is_no_response_is_502,
)
from tests.dataplane.test_enhanced_handover import another_version, is_gone
from tests.dataplane.test_enhanced_least import (
    counted_until_answered,
    test_a_storm_leaves_no_count,  # noqa: F401 - run here too
)
from tests.dataplane.test_enhanced_storm import (  # noqa: F401 - run here too
    test_random_requests_of_many_clients,
    test_while_others_leave_in_the_middle,
)
from tests.dataplane.test_enhanced_streams import (  # noqa: F401 - run here too
    good,
    test_a_half_closed_client_gets_its_responses,
    test_a_pipeline_that_overtakes_a_slow_response,
    test_a_response_before_the_requests_body,
    test_a_response_that_ends_with_its_connection,
    test_a_slow_reader_gets_everything,
    test_a_slow_server_gets_everything,
    test_an_upgrade_becomes_a_tunnel,
    test_bodies_of_every_size_both_ways,
    test_close_is_close_on_both_sides,
    test_pipelined_requests_are_answered_in_their_order,
)
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared_stage(short_cut_stage: Stage) -> Stage:
    return short_cut_stage


def _counted(stage: Stage) -> tuple[int, int]:
    """Requests and responses that went past TCP."""
    counters = stage.path.gate_counters()
    return counters["shortened"], counters["home"]


def _warm(stage: Stage, *targets: str) -> int:
    """A connection with connections of its own to endpoints."""
    number = int(stage.client("connect", VIP4, PORT))
    for target in targets:
        assert stage.client("ask", number, target)[0] == 200
    return number


def _ask(stage: Stage, number: int, name: str, size: int) -> None:
    target = f"/{name}/size/{size}"
    assert stage.client("ask", number, target) == good(name, target, size)


def test_a_request_that_went_past_tcp_is_counted_until_its_response_did(stage: Stage) -> None:
    before = _counted(stage)
    times = counted_until_answered(stage)
    assert min(now - then for now, then in zip(_counted(stage), before, strict=True)) >= times


def test_both_go_past_tcp_and_the_gate_hears_nothing(routed: Stage) -> None:
    number = _warm(routed, "/a", "/b")
    before, taken = _counted(routed), routed.taken()
    for size in (0, 1, 100, 1000, 10_000, 60_000):
        for name in "ab":
            _ask(routed, number, name, size)
    assert routed.taken() == taken + 12
    assert _counted(routed) == (before[0] + 12, before[1] + 12)
    assert routed.status()["busy"] == 0


@pytest.mark.parametrize(
    ("target", "extra"),
    [
        ("/a/chunked/100", {}),
        ("/a/size/100", {"method": "HEAD"}),
        ("/a/size/1000000", {}),
    ],
)
def test_responses_that_are_the_gates(routed: Stage, target: str, extra: dict[str, str]) -> None:
    requests, responses = _counted(routed)
    for _ in range(5):  # after the last of them the gate closes its connection
        number = _warm(routed, "/a")
        assert routed.client("ask", number, target, extra)[0] == 200
    assert _counted(routed) == (requests + 5, responses)


def test_by_turns_past_tcp_and_by_it(routed: Stage) -> None:
    """What went by TCP is read whole before anything goes past it, both ways."""
    number = _warm(routed, "/a")
    for turn in range(40):
        if turn % 4 == 3:
            extra = {"method": "POST", "size": 200_000, "chunked": turn % 8 == 3}
            assert routed.client("ask", number, "/a/echo", extra)[4] == 200_000
        _ask(routed, number, "a", 200_000 if turn % 2 else 100)
    assert all(_counted(routed))


def test_a_client_that_blocks_gets_its_responses_by_the_gate(routed: Stage) -> None:
    number = _warm(routed, "/a")
    routed.client("block", number)
    requests, responses = _counted(routed)
    _ask(routed, number, "a", 100)
    assert _counted(routed) == (requests + 1, responses)


def test_an_endpoint_that_is_not_managed_gets_its_requests_by_tcp(routed: Stage) -> None:
    other = routed.agent()
    port = other("serve", "127.0.0.1", "a")
    routed.point("a", port)
    number = _warm(routed, "/a")
    before, taken = _counted(routed), routed.taken()
    _ask(routed, number, "a", 100)
    assert routed.taken() == taken + 1
    assert _counted(routed) == before


def test_taken_away_while_connections_are_open(routed: Stage) -> None:
    number = _warm(routed, "/a")
    _ask(routed, number, "a", 100)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(300):
                _ask(routed, number, "a", 1000)
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        remove(routed.pins)
    finally:
        worker.join()
        routed.backends = routed.accelerate()
    assert not failed
    before = _counted(routed)
    for _ in range(20):
        _ask(routed, number, "a", 1000)
    assert _counted(routed) == before


def test_nothing_is_left_when_both_have_gone(routed: Stage) -> None:
    number = _warm(routed, "/a")
    _ask(routed, number, "a", 100)
    routed.client("close", number)
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")


def test_clients_of_responses_past_tcp_go_over_to_the_next_gate(
    routed: Stage, tmp_path: Path
) -> None:
    """Their connections to endpoints stay behind: the kernel may not send on them any more."""
    numbers, old = [_warm(routed, "/a", "/b", "/a", "/b") for _ in range(5)], running(routed.place)
    assert old
    before = _counted(routed)
    for number in numbers:
        for name in "abab":
            _ask(routed, number, name, 10)
    assert _counted(routed) != before
    another_version(routed, tmp_path)
    routed.start_gate()
    wait_for(lambda: routed.status()["sessions"] == len(numbers), "they have gone over")
    for number in numbers:
        routed.client("send", number, "GET /a/slow/1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
    for number in numbers:  # while they wait the old gate ends, and what it has with it
        assert routed.client("read", number) == good("a", "/a/slow/1.5", 0)
    assert is_gone(old)
    later = _counted(routed)
    for number in numbers:
        for name in "abab":
            _ask(routed, number, name, 10)
    assert _counted(routed) != later  # the kernel has connections of the next gate's
