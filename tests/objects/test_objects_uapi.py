# SPDX-License-Identifier: Apache-2.0
"""The packaged names agree with the installed linux/bpf.h."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.objects import uapi

HEADER = Path("/usr/include/linux/bpf.h")


@pytest.fixture(scope="module")
def header() -> str:
    return HEADER.read_text()


def test_helpers(header: str) -> None:
    body = header[header.index("#define __BPF_FUNC_MAPPER") :]
    body = (
        body[: body.index("/* */")] if "/* */" in body else body[: body.index("#define __BPF_ENUM")]
    )
    names = re.findall(r"FN\((\w+)[,)]", body.split("\n", 1)[1])
    assert len(names) > 200
    assert [uapi.helper(number) for number in range(len(names))] == names
    assert uapi.helper(100000) == "helper#100000"


@pytest.mark.parametrize(
    ("enum", "prefix", "name"),
    [
        ("bpf_prog_type", "BPF_PROG_TYPE_", uapi.program_type),
        ("bpf_map_type", "BPF_MAP_TYPE_", uapi.map_type),
        ("bpf_attach_type", "BPF_", uapi.attach_type),
    ],
)
def test_types(header: str, enum: str, prefix: str, name: object) -> None:
    body = re.search(rf"enum {enum} {{(.*?)}};", header, re.DOTALL)
    assert body is not None
    members = re.findall(r"^\s*(\w+),", body.group(1), re.MULTILINE)
    assert len(members) > 25
    for number, member in enumerate(members):
        if not member.startswith("__") and not member.endswith("_DEPRECATED"):
            assert name(number) == member.removeprefix(prefix)  # type: ignore[operator]
