# SPDX-License-Identifier: Apache-2.0
"""The chart of a benchmark is XML, with a bar for each row to the scale of its cell."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from ci.bench.enhanced import _read
from ci.bench.plot import draw

_SVG = "{http://www.w3.org/2000/svg}"
_TOLD = """
  Latency Distribution
     50%    1.50ms
  2000 requests in 1.00s, 1.00MB read
Requests/sec:   1999.50
"""


def _row(way: str, rate: float, connections: int = 1) -> dict[str, object]:
    return {
        "place": "veth",
        "body": "1 KB",
        "connections": connections,
        "way": way,
        "requests/s": rate,
        "of two Envoys": 2.0,
        "p50 us": 10.0,
    }


def test_bars_are_as_long_as_their_rates() -> None:
    rows = [_row("direct", 100.0), _row("a < b", 50.0), _row("direct", 5.0, connections=16)]
    found = ET.fromstring(draw(rows))
    bars = [float(one.attrib["width"]) for one in found.iter(f"{_SVG}rect") if "y" in one.attrib]
    assert bars[0] == pytest.approx(2 * bars[1], abs=0.2)
    assert bars[0] == bars[2]
    texts = [one.text for one in found.iter(f"{_SVG}text")]
    assert "a < b" in texts
    assert "veth, 1 KB, 16 connections" in texts


def test_what_wrk_says_is_read_with_its_units() -> None:
    assert _read(_TOLD, "") == (1999.5, 1500.0, 2000)


@pytest.mark.parametrize("flaw", ["Non-2xx or 3xx responses: 1", "Socket errors: connect 1"])
def test_a_run_with_errors_does_not_count(flaw: str) -> None:
    with pytest.raises(RuntimeError, match="direct: wrk says"):
        _read(_TOLD + flaw, "direct")


def test_what_the_lean_client_says_is_read_too() -> None:
    assert _read("3000 1.500 71.8\n", "") == (2000.0, 71.8, 3000)
