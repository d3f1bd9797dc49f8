# SPDX-License-Identifier: Apache-2.0
"""The kernel's C code, compiled here and called with the same tables."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runtime.plan.walk import Routed
from runtime.tables.http_layout import HttpCell, HttpHead, HttpOutcome
from runtime.tables.http_numbers import PLACES, Verdict
from runtime.tables.http_routes import CompiledRoutes

CHECKOUT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("native.c")
_CELL = len(HttpCell(0, 0, 0, 0).pack())
_HEAD = len(HttpHead(0, 0, 0, (0,) * PLACES, (0,) * PLACES).pack())
_OUTCOME = len(HttpOutcome(0, 0).pack())


def build(target: Path, *options: str) -> Path:
    """Compile native.c."""
    subprocess.run(
        ["gcc", "-std=gnu11", "-g", "-O2", "-Wall", "-Wextra", "-Wno-sign-compare", "-Werror",
         *options, f"-I{CHECKOUT}/bpf/include", str(SOURCE), "-o", str(target)],
        check=True,
    )  # fmt: skip
    return target


class Matcher:
    """The library."""

    def __init__(self, directory: Path) -> None:
        built = build(directory / "native.so", "-shared", "-fPIC")
        self._library = ctypes.CDLL(os.fspath(built))

    def route(self, tables: CompiledRoutes, data: bytes) -> Routed:
        head = ctypes.create_string_buffer(_HEAD)
        outcome = ctypes.create_string_buffer(_OUTCOME)
        result = self._library.native_route(
            data, len(data), tables.grammar, tables.graph, len(tables.graph) // _CELL, head, outcome
        )
        said = HttpOutcome.unpack(outcome.raw)
        found = HttpHead.unpack(head.raw)
        return Routed.of(Verdict(result), found, route=said.route, steps=said.steps)


def under_sanitizers(
    directory: Path, tables: CompiledRoutes, inputs: Sequence[bytes]
) -> list[tuple[int, int]]:
    """Verdict and route of each input, by a program that ends at the first bad access."""
    program = build(directory / "native", "-fsanitize=address,undefined", "-fno-sanitize-recover")
    grammar, graph = directory / "grammar", directory / "graph"
    grammar.write_bytes(tables.grammar)
    graph.write_bytes(tables.graph)
    text = b"".join(len(data).to_bytes(4, "little") + data for data in inputs)
    done = subprocess.run(
        [str(program), str(grammar), str(graph)], input=text, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    rows = done.stdout.decode().splitlines()
    return [(int(row.split()[0]), int(row.split()[1])) for row in rows]
