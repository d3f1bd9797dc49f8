# SPDX-License-Identifier: Apache-2.0
"""A bar chart of the ways of a request, as SVG; without a library, as it is rectangles and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _LABEL, _BAR, _GAP, _HEAD = 800, 190, 18, 22, 30
_COLOURS = {
    "direct": "#8a8f98",
    "one Envoy": "#c98b8b",
    "two Envoys": "#b55d5d",
    "a redirect alone": "#8a8f98",
}
_OURS = "#3f7cac"

Row = Mapping[str, Any]


def _cell(row: Row) -> tuple[str, str, int]:
    return row["place"], row["body"], row["connections"]


def _group(rows: Sequence[Row], top: int) -> list[str]:
    """The bars of one cell, to a scale of their own."""
    place, body, connections = _cell(rows[0])
    most = max(row["requests/s"] for row in rows)
    title = f"{place}, {body}, {connections} connection{'s' if connections > 1 else ''}"
    parts = [f'<text x="8" y="{top + 18}" class="t">{escape(title)}</text>']
    for number, row in enumerate(rows):
        y = top + _HEAD + number * _GAP
        width = (_WIDTH - _LABEL - 270) * row["requests/s"] / most
        colour = _COLOURS.get(row["way"], _OURS)
        told = (
            f"{row['requests/s']:,.0f}/s, {row['of two Envoys']:.1f} x two Envoys,"
            f" p50 {row['p50 us']:,.0f} µs"
        )
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(row["way"])}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 13}">{told}</text>',
        ]
    return parts


def draw(rows: Sequence[Row]) -> str:
    """The chart.

    Args:
        rows: of `ci.bench.enhanced`; those of one cell stand together.

    Returns:
        an SVG document.
    """
    cells: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        cells.setdefault(_cell(row), []).append(row)
    parts, top = [], 8
    for each in cells.values():
        parts += _group(each, top)
        top += _HEAD + len(each) * _GAP + 10
    style = "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}">',
            f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )
