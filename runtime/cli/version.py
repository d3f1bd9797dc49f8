# SPDX-License-Identifier: Apache-2.0
"""`kmesh version`."""

from __future__ import annotations

import click

from runtime import ui
from runtime.errors import KmeshError


@click.command()
@ui.output_option
def version(output: str) -> None:
    """Show the version, the commit, the libbpf found and the compiled objects' hash."""
    from runtime.objects.locate import objects_dir
    from runtime.version import describe

    try:
        objects = objects_dir()
    except KmeshError:
        objects = None
    show(describe(objects), output)


def show(facts: dict[str, str | None], output: str) -> None:
    """Print what `describe` found."""
    if output == "json":
        ui.print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' ') + ':':<16} {value or 'none found'}")
