# SPDX-License-Identifier: Apache-2.0
"""What a kernel's BTF says about fields, in the form in which bcc answers about its headers."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.bpf.btf import Btf, Kind

_CLASSES = {Kind.INT: 1, Kind.ENUM: 1, Kind.PTR: 5, Kind.STRUCT: 12, Kind.UNION: 13}


def _member(btf: Btf, number: int, wanted: str) -> tuple[int, int] | None:
    for name, kind, bits in btf.members(number):
        inner = btf.resolve(kind)
        if name == wanted:
            return inner, bits // 8
        if not name and btf.kind(inner) in (Kind.STRUCT, Kind.UNION):
            found = _member(btf, inner, wanted)
            if found is not None:
                return found[0], found[1] + bits // 8
    return None


def answers(btf: Btf, paths: Iterable[str]) -> dict[str, list[int]]:
    """Size of a structure; offset, size and class of a field."""
    found: dict[str, list[int]] = {}
    for path in paths:
        root, *fields = path.split(".")
        number, offset = btf.find(root, Kind.STRUCT), 0
        assert number is not None, root
        for field in fields:
            stepped = _member(btf, number, field)
            assert stepped is not None, path
            number, offset = stepped[0], offset + stepped[1]
        whole = [offset, btf.size(number), _CLASSES[Kind(btf.kind(number))]]
        found[path] = whole if fields else [btf.size(number)]
    return found
