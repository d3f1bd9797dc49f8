# SPDX-License-Identifier: Apache-2.0
"""What judges shares in other tests: it lets chance pass, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.dataplane.world import chi_square, expect_shares

WEIGHTS = {"a": 1, "b": 3, "c": 6}
FAR_OFF = {"a": 300, "b": 300, "c": 300}
RIGHT = {"a": 100, "b": 300, "c": 600}


def replay(*samples: dict[str, int]) -> Callable[[int], dict[str, int]]:
    left = list(samples)
    return lambda _times: left.pop(0)


def drawn(draw: random.Random, weights: dict[str, float]) -> Callable[[int], Counter[str]]:
    names, shares = list(weights), list(weights.values())
    return lambda times: Counter(draw.choices(names, shares, k=3000 * times))


def test_one_sample_that_is_far_off_is_chance_and_two_are_not() -> None:
    expect_shares(replay(RIGHT), WEIGHTS)
    expect_shares(replay(FAR_OFF, RIGHT), WEIGHTS)
    with pytest.raises(AssertionError, match="further than"):
        expect_shares(replay(FAR_OFF, FAR_OFF), WEIGHTS)


def test_who_has_no_share_is_never_chosen() -> None:
    with pytest.raises(AssertionError):
        expect_shares(replay({**RIGHT, "none": 1}), {**WEIGHTS, "none": 0})


def test_a_bias_is_seen_as_well_as_by_one_sample() -> None:
    draw, biased = random.Random(5), {"a": 1.3, "b": 3.0, "c": 5.7}
    by_one = sum(chi_square(drawn(draw, biased)(1), WEIGHTS) >= 13.8 for _ in range(200))
    seen = 0
    for _ in range(200):
        try:
            expect_shares(drawn(draw, biased), WEIGHTS)
        except AssertionError:
            seen += 1
    assert by_one > 180
    assert seen >= 0.95 * by_one
