# SPDX-License-Identifier: Apache-2.0
"""A large document as JSON with one resource on a line: quick to write, and made for diff and grep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def json_lines(document: Mapping[str, Any] | list[Any]) -> str:
    """JSON in which every member of the document's lists has a line of its own."""
    return "".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any] | list[Any]) -> Iterator[str]:
    if isinstance(document, list):
        yield from _list(document)
        return
    before = "{\n"
    for key, value in document.items():
        yield f"{before}{_text(key)}: "
        yield from _list(value) if isinstance(value, list) else [_text(value)]
        before = ",\n"
    yield "\n}" if document else "{}"


def _list(items: list[Any]) -> Iterator[str]:
    yield "[\n" + ",\n".join(map(_text, items)) + "\n]" if items else "[]"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
