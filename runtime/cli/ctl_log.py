# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl log`: from which level the daemon's parts log."""

from __future__ import annotations

from pathlib import Path

import click

from runtime import log, ui
from runtime.cli.options import daemon, run_dir_option, tell


@click.command("log")
@click.argument("area", required=False)
@click.argument("level", required=False, type=click.Choice(log.LEVELS))
@run_dir_option
@ui.output_option
def log_(area: str | None, level: str | None, run_dir: Path, output: str) -> None:
    """The level from which each part of the daemon logs; with AREA and LEVEL, set one ("kmesh": all).

    \b
    Example:
      kmeshctl log enrol debug
      kmeshctl --node worker-1 log kmesh debug
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    if area and level:
        tell(run_dir, "/debug/loggers", {"name": area, "level": level}, words=("log", area, level))
    levels = daemon(run_dir).get("/debug/loggers")
    shown = {area: levels[area]} if area in levels else levels
    if output == "json":
        ui.print_json(shown)
        return
    ui.print_table(("AREA", "LEVEL"), sorted(shown.items()))
