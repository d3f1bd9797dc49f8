# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build objects`."""

from __future__ import annotations

from pathlib import Path

import click

from runtime import ui


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--sources",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The tree of BPF sources; without, the installed one or the checkout's.",
)
@click.option("--no-load", is_flag=True, help="Do not try the objects on this kernel.")
@ui.output_option
def objects(*, out: Path, sources: Path | None, no_load: bool, output: str) -> None:
    """Compile the BPF sources into OUT, look into each object, and have this kernel load it where it may.

    An object that is empty, foreign or refused is an error, with its name and the reason.
    """
    from builder.objects import make_objects
    from runtime.objects.locate import sources_dir

    def say(text: str) -> None:
        click.echo(text, err=True)

    made = make_objects(sources or sources_dir(), out, load=not no_load, say=say)
    verdicts = {True: "yes", False: "no", None: "not tried"}
    if output == "json":
        ui.print_json(
            [
                {
                    "object": item.name,
                    "sha256": item.info.sha256,
                    "size": item.info.size,
                    "loaded": item.loaded,
                }
                for item in made.objects
            ]
        )
        return
    ui.print_table(
        ("Object", "Bytes", "Programs", "Maps", "Loads here", "SHA-256"),
        [
            (
                item.name,
                item.info.size,
                len(item.info.programs),
                len(item.info.maps),
                verdicts[item.loaded],
                item.info.sha256[:12],
            )
            for item in made.objects
        ],
    )
