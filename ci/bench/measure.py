# SPDX-License-Identifier: Apache-2.0
"""What a benchmark gives, and medians."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """A named table; every row has the same columns."""

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)


def median_row(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each column."""
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
