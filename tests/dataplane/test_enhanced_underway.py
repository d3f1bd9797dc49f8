# SPDX-License-Identifier: Apache-2.0
"""What a client sends while a response past TCP has gone, and is not there yet: nothing overtakes it.

The moment is made to last. The client's next request lies in memory that is not there: the kernel
waits for it with the client's socket locked, and so does the sender of the response for that lock.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runtime.bpf.lib import lib
from runtime.tables.enhanced_layout import Slot
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.test_enhanced_streams import good
from tests.dataplane.world import VIP4, end_agent, wait_for

pytestmark = pytest.mark.root

_BPF_PROG_TEST_RUN = 10
_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, 0)
_ETHERNET_HEADER = bytes(14)


@pytest.fixture(scope="module")
def shared_stage(short_cut_stage: Stage) -> Stage:
    return short_cut_stage


def _slot(stage: Stage) -> int:
    """The only client's."""
    slots = stage.path.maps["gate_slots"].items()
    [number] = [key for key, value in slots if Slot.unpack(value).cookie]
    return int.from_bytes(number, "little")


def _is_under_way(stage: Stage, slot: int) -> int:
    """As the gate asks (runtime/gate/underway.c)."""
    packet = ctypes.create_string_buffer(_ETHERNET_HEADER + struct.pack("=I", slot))
    program = lib().bpf_obj_get(os.fsencode(stage.path.tables / "kmesh_ask_underway"))
    assert program >= 0
    size = len(_ETHERNET_HEADER) + 4
    attributes = bytearray(120)
    struct.pack_into("=IIIIQ", attributes, 0, program, 0, size, 0, ctypes.addressof(packet))
    shared = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    failed = ctypes.CDLL(None).syscall(_SYS_BPF, _BPF_PROG_TEST_RUN, shared, len(attributes))
    os.close(program)
    assert not failed
    return int.from_bytes(attributes[4:8], "little")


@contextmanager
def _held_up(stage: Stage, target: str) -> Iterator[int]:
    """A client whose response is on its way as long as this lasts, and who has sent `target` after it."""
    number = int(stage.client("connect", VIP4, PORT))
    for warm in ("/a", "/b"):
        assert stage.client("ask", number, warm)[0] == 200
    home = stage.path.gate_counters()["home"]
    stage.client("send", number, "GET /a/slow/0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
    text = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"
    if why := stage.client("send_from_afar", number, text):
        pytest.skip(f"no memory that comes late: {why}")
    try:
        wait_for(lambda: stage.path.gate_counters()["home"] > home, "the response has gone")
        yield number
    finally:
        stage.client("bring", number)


def test_a_request_sent_meanwhile_is_not_taken_and_comes_second(routed: Stage) -> None:
    with _held_up(routed, "/b/next") as number:
        taken, passed = routed.taken(), routed.path.gate_counters()["not_idle"]
    assert routed.client("read", number) == good("a", "/a/slow/0.3", 0)
    assert routed.client("read", number) == good("b", "/b/next", 0)
    assert routed.taken() == taken
    assert routed.path.gate_counters()["not_idle"] == passed + 1
    assert routed.client("ask", number, "/b/after")[0] == 200
    assert routed.taken() == taken + 1


def test_the_gate_is_told_until_it_is_there(routed: Stage) -> None:
    with _held_up(routed, "/b/next") as number:
        slot = _slot(routed)
        assert _is_under_way(routed, slot) == 1
        assert _is_under_way(routed, slot + 1) == 0  # nobody's
    assert routed.client("read", number)[0] == 200
    wait_for(lambda: not _is_under_way(routed, slot), "the sender is done")
    assert routed.client("read", number)[0] == 200


def test_of_an_endpoint_that_has_gone_nothing_is_under_way(routed: Stage) -> None:
    number = int(routed.client("connect", VIP4, PORT))
    for _ in range(3):
        assert routed.client("ask", number, "/a")[0] == 200
    home = routed.path.gate_counters()["home"]
    assert routed.client("ask", number, "/a")[0] == 200
    assert routed.path.gate_counters()["home"] == home + 1
    routed.agents.remove(routed.backend)
    end_agent(routed.backend)
    routed.backend = routed.agent(routed.backends)
    routed.serve("a", "b")
    passed = routed.path.gate_counters()["not_idle"]
    assert routed.client("ask", number, "/b/x") == good("b", "/b/x", 0)
    assert routed.path.gate_counters()["not_idle"] == passed
