# SPDX-License-Identifier: Apache-2.0
"""Positions in a stream have 32 bits: after 4 GiB of one request they are those of its beginning again."""

from __future__ import annotations

import pytest

from runtime.tables.enhanced_layout import Slot
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.world import VIP4

pytestmark = pytest.mark.root

_INSIDE = "GET /b/inside HTTP/1.1\r\nHost: a\r\n\r\n"


def test_bytes_of_a_body_are_no_request_where_numbers_come_again(routed: Stage) -> None:
    """As if 4 GiB of the body had been sent: what is answered seems to reach to where it goes on."""
    number = int(routed.client("connect", VIP4, PORT))
    for target in ("/a", "/b", "/a", "/b"):
        assert routed.client("ask", number, target)[0] == 200
    slots = routed.path.maps["gate_slots"]
    [(key, _)] = [pair for pair in slots.items() if Slot.unpack(pair[1]).cookie]
    before = Slot.unpack(slots.lookup(key) or b"")
    body = "x" * 5000 + _INSIDE
    begins = f"POST /a/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{'x' * 5000}"
    routed.client("send", number, begins)
    taken, now = routed.taken(), Slot.unpack(slots.lookup(key) or b"")
    slots.update(key, now._replace(answered=before.answered + len(begins)).pack())
    routed.client("send", number, _INSIDE)
    answer = routed.client("read", number)
    assert (answer[0], answer[1], answer[4]) == (200, "a", len(body))
    assert routed.taken() == taken
    for target in ("/a", "/b"):
        assert routed.client("ask", number, target)[0] == 200
    assert routed.taken() == taken + 2
