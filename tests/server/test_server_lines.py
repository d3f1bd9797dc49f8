# SPDX-License-Identifier: Apache-2.0
"""Large documents: JSON all the same, one resource on a line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.server.lines import json_lines


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"a": []},
        {"version": {"x": None}, "services": [{"n": 1, "ports": [1, 2]}, {"n": "ü\n"}], "b": []},
        [{"n": 1}, {"n": 2}],
    ],
)
def test_it_is_json(document: Any) -> None:
    assert json.loads(json_lines(document)) == document


def test_a_resource_is_a_line() -> None:
    text = json_lines({"services": [{"name": "a"}, {"name": "b"}]})
    assert text.splitlines()[1:3] == ['"services": [', '{"name": "a"},']
    assert text.endswith("}\n")
