# SPDX-License-Identifier: Apache-2.0
"""Which stages of a kernel a run carries out: all, or a part of what the last run told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ci.matrix.plan import unexpected_skips

FAILED = "failed"


class Selection:
    """Called with a stage's name: whether it is to be carried out.

    Args:
        words: what has one of these in its name; FAILED: what was not as it should be. None: all. What the
            last run did not try is carried out in any case: nothing is missing afterwards.
        last: the row of the last run.

    Attributes:
        told: what the stages of the last run told.
    """

    def __init__(self, words: Sequence[str] = (), last: Mapping[str, Any] | None = None) -> None:
        self.told: Sequence[dict[str, Any]] = last["told"] if last else ()
        suite = last["suite"] if last else ""
        self._words = [word for word in words if word != FAILED]
        wrong = (each["stage"] for each in self.told if not _good(each, suite))
        self._stages = {*wrong} if FAILED in words else set()
        self._tried = {each["stage"] for each in self.told} if words else set()

    def __call__(self, stage: str) -> bool:
        new = stage not in self._tried
        return new or stage in self._stages or any(word in stage for word in self._words)


def _good(told: Mapping[str, Any], suite: str) -> bool:
    wrong = told.get("error") or told.get("failed") or told.get("complaints")
    return not wrong and not unexpected_skips(told.get("skipped", {}), suite)


ALL = Selection()
