# SPDX-License-Identifier: Apache-2.0
"""What a benchmark gives, and medians."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Result:
    """A named table; every row has the same columns."""

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)


def median_row(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each column."""
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def as_json(result: Result) -> str:
    whole = {"name": result.name, "title": result.title, "rows": list(result.rows)}
    return json.dumps(whole, indent=1)


def show(result: Result, output: str) -> None:
    """Print it as a "table", or as "json"."""
    if output == "json":
        click.echo(as_json(result))
    else:
        _print(result)


def _print(result: Result) -> None:
    columns = list(result.rows[0])
    lines = [columns, *([_cell(row, column) for column in columns] for row in result.rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    click.echo(f"\n{result.title}")
    for line in lines:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join([line[0].ljust(len(first)), *others]))


def _cell(row: Mapping[str, object], column: str) -> str:
    value = row.get(column, "")
    return f"{value:.2f}" if isinstance(value, float) and value < 100 else f"{value}"
