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
@click.option(
    "--cni-bin",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also remove the CNI plugin from this directory of the host ...",
)
@click.option(
    "--cni-conf",
    type=click.Path(file_okay=False, path_type=Path),
    help="... and from every chain in this one.",
)
@click.option(
    "--stay",
    is_flag=True,
    help="Wait for a daemon that runs to end, clean up, and again if one comes back, until ended.",
)
@click.option(
    "--done-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --stay: a file that is there while everything is clean.",
)
@ui.output_option
def cleanup(
    *,
    run_dir: Path,
    pins: Path,
    cni_bin: Path | None,
    cni_conf: Path | None,
    stay: bool,
    done_file: Path | None,
    output: str,
) -> None:
    """Remove everything that a killed daemon left, and tell what it was.

    That is: pinned programs, links and maps (which keep serving until then), control groups of
    kmesh exec, and the files of the run directory. Running it again changes nothing. While a
    daemon runs it refuses: end the daemon, which cleans up by itself.
    """
    from runtime.launch.cleanup import Cleaner

    cleaner = Cleaner(run_dir=run_dir, pins=pins, cni_bin=cni_bin, cni_conf=cni_conf)
    if stay:
        cleaner.stay(done_file, say=click.echo)
        return
    removed = cleaner.clean()
    if output == "json":
        ui.print_json({"removed": removed})
        return
    for item in removed:
        click.echo(f"removed {item}")
    if not removed:
        click.echo("nothing to remove")
