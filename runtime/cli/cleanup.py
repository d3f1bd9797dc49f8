# SPDX-License-Identifier: Apache-2.0
"""`kmesh cleanup`."""

from __future__ import annotations

from pathlib import Path

import click

from runtime import ui
from runtime.cli.options import pins_option, run_dir_option


@click.command()
@run_dir_option
@pins_option
@ui.output_option
def cleanup(run_dir: Path, pins: Path, output: str) -> None:
    """Remove everything that a killed daemon left, and tell what it was.

    That is: pinned programs, links and maps (which keep serving until then), control groups of
    kmesh exec, and the files of the run directory. Running it again changes nothing. While a
    daemon runs it refuses: end the daemon, which cleans up by itself.
    """
    from runtime.launch.cleanup import clean

    removed = clean(run_dir=run_dir, pins=pins)
    if output == "json":
        ui.print_json({"removed": removed})
        return
    for item in removed:
        click.echo(f"removed {item}")
    if not removed:
        click.echo("nothing to remove")
