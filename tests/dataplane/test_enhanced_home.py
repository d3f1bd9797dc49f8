# SPDX-License-Identifier: Apache-2.0
"""Responses that go home within the kernel, and those that must not.

Also whatever the other suites find right of responses by the gate: the same tests, on a stage where
responses go home (`shared_stage` is this module's).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.bpf.attach import AttachType, attached_to_map, detach_from_map
from runtime.kernel.fionread import counts_rightly
from runtime.kernel.home import bring_home, goes_home, send_by_gate
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.redirects import skip_where_redirects_are_broken
from tests.dataplane.test_enhanced_faults import (  # noqa: F401 - run here too
    test_an_endpoint_that_ends_before_its_response,
    test_an_endpoint_that_ends_within_its_response_ends_the_clients_connection,
    test_bytes_after_a_response_are_nobodys,
    test_what_is_no_response_is_502,
)
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
    test_an_upgrade_becomes_a_tunnel,
    test_bodies_of_every_size_both_ways,
    test_close_is_close_on_both_sides,
    test_continue_is_relayed,
    test_methods,
    test_pipelined_requests_are_answered_in_their_order,
)
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared_stage(all_objects: Path, gate_program: Path) -> Iterator[Stage]:
    skip_where_redirects_are_broken()
    with Stage(all_objects, gate_program) as made:
        bring_home(made.path, all_objects)
        yield made


def _home(stage: Stage) -> int:
    return stage.path.gate_counters()["home"]


def _warm(stage: Stage, *targets: str) -> int:
    """A connection with connections of its own to endpoints."""
    number = int(stage.client("connect", VIP4, PORT))
    for target in targets:
        assert stage.client("ask", number, target)[0] == 200
    return number


def test_small_responses_go_home_and_the_gate_hears_nothing(routed: Stage) -> None:
    number = _warm(routed, "/a", "/b")
    before = _home(routed)
    for size in (0, 1, 100, 1000, 10_000, 30_000):
        for name in "ab":
            target = f"/{name}/size/{size}"
            assert routed.client("ask", number, target) == good(name, target, size)
    assert _home(routed) >= before + 8  # larger ones may come in pieces
    assert routed.status()["busy"] == 0


def test_a_request_whose_response_is_home_is_under_way_no_more(stage: Stage) -> None:
    before = _home(stage)
    times = counted_until_answered(stage)
    assert _home(stage) >= before + times


@pytest.mark.parametrize(
    ("target", "extra"),
    [
        ("/a/chunked/100", {}),
        ("/a/size/100", {"method": "HEAD"}),
        ("/a/size/1000000", {}),
    ],
)
def test_what_does_not_go_home(routed: Stage, target: str, extra: dict[str, str]) -> None:
    number = _warm(routed, "/a")
    before = _home(routed)
    assert routed.client("ask", number, target, extra)[0] == 200
    assert _home(routed) == before
    assert routed.client("ask", number, "/a")[:2] == [200, "a"]
    assert _home(routed) == before + 1


def test_a_client_that_blocks_is_served_by_the_gate(routed: Stage) -> None:
    number = _warm(routed, "/a")
    routed.client("block", number)
    before = _home(routed)
    assert routed.client("ask", number, "/a")[:2] == [200, "a"]
    assert _home(routed) == before


def test_by_turns_it_goes_home_and_does_not(routed: Stage) -> None:
    """A response by TCP is read whole before one goes past it."""
    number = _warm(routed, "/a")
    for turn in range(30):
        size = 200_000 if turn % 2 else 100
        target = f"/a/size/{size}"
        assert routed.client("ask", number, target) == good("a", target, size)


def test_a_client_that_ends_its_stream_gets_what_went_home(routed: Stage) -> None:
    for _ in range(10):
        number = _warm(routed, "/a")
        routed.client("send", number, "GET /a/size/500 HTTP/1.1\r\nHost: x\r\n\r\n")
        routed.client("end_sending", number)
        assert routed.client("read", number)[4] == 500
        assert routed.client("at_end", number)
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")


def test_switched_off_and_on_again(routed: Stage, all_objects: Path) -> None:
    number = _warm(routed, "/a")
    before = _home(routed)
    assert routed.client("ask", number, "/a/size/100") == good("a", "/a/size/100", 100)
    assert _home(routed) == before + 1
    assert goes_home(routed.path)
    assert send_by_gate(routed.path)
    assert not goes_home(routed.path)
    assert not send_by_gate(routed.path)
    assert counts_rightly(routed.path.maps["clients"])
    for size in (0, 100, 30_000) * 3:  # on a connection that has the program still
        target = f"/a/size/{size}"
        assert routed.client("ask", number, target) == good("a", target, size)
    assert _home(routed) == before + 1
    bring_home(routed.path, all_objects)
    assert goes_home(routed.path)
    for _ in range(20):  # connections to endpoints that were made before do as they did
        number = _warm(routed, "/a")
        assert routed.client("ask", number, "/a/size/100") == good("a", "/a/size/100", 100)
    assert _home(routed) > before + 1


def test_what_is_taken_away_is_what_was_brought(stage: Stage, all_objects: Path) -> None:
    """Clients keep the program that lets everything through where they had it before."""
    clients = stage.path.maps["clients"].fd

    def has_one() -> bool:
        program = attached_to_map(clients, AttachType.SK_SKB_STREAM_VERDICT)
        if program is not None:
            os.close(program)
        return program is not None

    try:
        send_by_gate(stage.path)
        stage.path.let_clients_through()
        bring_home(stage.path, all_objects)
        send_by_gate(stage.path)
        assert has_one()
        program = attached_to_map(clients, AttachType.SK_SKB_STREAM_VERDICT)
        assert program is not None
        detach_from_map(program, clients, AttachType.SK_SKB_STREAM_VERDICT)
        os.close(program)
        for _ in range(2):  # as one daemon after another does
            bring_home(stage.path, all_objects)
            assert has_one()
        send_by_gate(stage.path)
        assert not has_one()
    finally:
        bring_home(stage.path, all_objects)
