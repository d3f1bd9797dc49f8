# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime import ui

if TYPE_CHECKING:
    from runtime.objects.info import ObjectInfo


@click.command()
@click.argument("path", metavar="OBJECT", type=click.Path(path_type=Path))
@ui.output_option
def inspect(*, path: Path, output: str) -> None:
    """Tell what a compiled BPF object is made of, and what it needs of a kernel.

    \b
      kmesh-build inspect build/bpf/compat/connect4.bpf.o
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from builder.objects import as_json
    from runtime.objects.inspect import inspect_object

    info = inspect_object(path)
    if output == "json":
        ui.print_json(as_json(info))
        return
    _show(info)


def _show(info: ObjectInfo) -> None:
    click.echo(f"{info.path}: {info.size} bytes, {info.arch}, licence {info.license}")
    click.echo(f"SHA-256 {info.sha256}\n")
    ui.print_table(
        ("Program", "Section", "Type", "Attach type", "Instructions", "Helpers", "Kfuncs"),
        [
            (
                program.name,
                program.section,
                program.type,
                program.attach_type or "-",
                program.instructions,
                ", ".join(f"{helper.name} ({helper.id})" for helper in program.helpers) or "-",
                ", ".join(program.kfuncs) or "-",
            )
            for program in info.programs
        ],
        beneath=("Section", "Attach type", "Helpers", "Kfuncs"),
    )
    click.echo()
    ui.print_table(
        ("Map", "Type", "Key", "Value", "Entries"),
        [(m.name, m.type, m.key_size, m.value_size, m.max_entries) for m in info.maps],
    )
    fields = ", ".join(info.core_fields) or "none"
    click.echo(f"\nKernel fields it cannot do without: {fields}")
