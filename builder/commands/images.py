# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build images`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from builder.commands.options import base_options, wishes
from builder.interrupt import Ending, ended_cleanly
from runtime import ui


@click.command()
@base_options
@click.option("--rebuild", is_flag=True, help="Build again what is there, every step of it.")
@click.option("--no-load", is_flag=True, help="Do not try the objects on this kernel.")
@click.option("--no-probe", is_flag=True, help="Do not run the prober at the end.")
@click.option("--keep-engine", is_flag=True, help="Leave a private engine running.")
@ui.output_option
def images(  # noqa: PLR0913 - click hands over one argument an option
    *,
    tag: str,
    hub: str,
    bootstrap: bool,
    names: tuple[str, ...],
    mirror: str | None,
    rebuild: bool,
    no_load: bool,
    no_probe: bool,
    keep_engine: bool,
    output: str,
    **bases: Any,
) -> None:
    """Build the images, then run the generic image's prober on this host.

    Nothing gets its name before all images are built and have been run once. What has not changed is not
    built again. Where no Docker engine answers, a private one is started for the time of the build.
    """
    from builder.cache import cache_dir
    from builder.checkout import find_root, read_checkout
    from builder.recipes import recipe, recipes
    from builder.request import Request

    request = Request(
        checkout=read_checkout(find_root()),
        cache=cache_dir(),
        images=[recipe(name) for name in names] or recipes(),
        tag=tag,
        hub=hub,
        wishes=wishes(**bases),
        mirror=mirror,
        bootstrap=bootstrap,
        rebuild=rebuild,
        load=not no_load,
        keep_engine=keep_engine,
    )
    with ended_cleanly("no name has changed; run it again to continue") as ending:
        outcome = _run(request, ending, probe=not no_probe)
    _show(outcome, output)


@dataclass(frozen=True)
class _Outcome:
    results: list[Any]
    engine: str
    seconds: float
    probe: dict[str, Any] | None
    probe_text: str
    command: str


def _run(request: Any, ending: Ending, *, probe: bool) -> _Outcome:
    from builder.engine_session import engine_session
    from builder.kernels import judge_known
    from builder.objects import make_objects
    from builder.pipeline import Pipeline
    from builder.progress import make_progress
    from runtime.compile.native import compile_programs

    def named() -> None:
        ending.left = (
            "all images are built and have their names; this host was not probed to the end"
        )

    start = time.monotonic()
    with make_progress() as progress:
        root: Path = request.checkout.root
        built = root / "build" / "bpf"
        objects = make_objects(root / "bpf", built, load=request.load, say=progress.say)
        programs = tuple(compile_programs(root / "build" / "bin"))
        objects = replace(objects, programs=programs)
        kernels = judge_known(built)
        with engine_session(request.cache, keep=request.keep_engine, say=progress.say) as engine:
            description = engine.description
            results = Pipeline(request, engine, objects, kernels, progress).run(named=named)
            if probe:
                progress.say("probing this host with the generic image")
            report, text, command = _probe(engine, results) if probe else (None, "", "")
    return _Outcome(results, description, time.monotonic() - start, report, text, command)


def _probe(engine: Any, results: list[Any]) -> tuple[dict[str, Any] | None, str, str]:
    """Run the prober of the generic image: its report, the same for people, and the command by hand."""
    from builder.smoke import docker_run_line, probe_here

    generic = next((result for result in results if result.image.name == "generic"), None)
    if generic is None:
        return None, "", ""
    report, text = probe_here(engine, generic.id)
    return report, text, docker_run_line(generic.reference)


def _show(outcome: _Outcome, output: str) -> None:
    from builder.report import COLUMNS, SENTENCES, rows, to_json

    if output == "json":
        made = to_json(
            outcome.results, engine=outcome.engine, seconds=outcome.seconds, probe=outcome.probe
        )
        ui.print_json(made)
        return
    ui.print_table(COLUMNS, rows(outcome.results), beneath=SENTENCES)
    click.echo(f"\n{len(outcome.results)} images in {outcome.seconds:.1f} s")
    if outcome.probe_text:
        click.echo(f"\nThis host, probed by the generic image ({outcome.command}):\n")
        click.echo(outcome.probe_text)
