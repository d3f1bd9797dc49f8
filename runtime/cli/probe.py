# SPDX-License-Identifier: Apache-2.0
"""`kmesh probe`: what this kernel can run, why not more, and what would mend it."""

from __future__ import annotations

from pathlib import Path

import click

from runtime import ui
from runtime.errors import KmeshError

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_NEITHER = 3


@click.command(
    epilog="Exit status: 0 when the enhanced or the compat path can run, 3 when neither can."
)
@ui.output_option
@click.option(
    "--quick", is_flag=True, help="Leave the behaviour battery out: names and loads only."
)
@click.option("--explain", metavar="CAPABILITY", help="Tell everything about one capability.")
@click.option("--btf", type=_FILE, help="Judge a kernel that is not running, from its BTF.")
@click.option("--config", type=_FILE, help="With --btf: that kernel's build configuration.")
@click.option(
    "--module-btf", "modules", type=_FILE, multiple=True, help="With --btf: that of a module of it."
)
@click.option("--release", help="With --btf: that kernel's `uname -r`, for known bugs.")
@click.option("--objects", type=_DIRECTORY, help="Where the compiled objects are.")
@click.option(
    "--ignore-bug",
    "overrides",
    metavar="NAME",
    multiple=True,
    help="A known bug that your kernel's vendor has mended (repeatable).",
)
@click.option("--no-cache", is_flag=True, help="Do not believe, or keep, earlier findings.")
@click.pass_context
def probe(  # noqa: PLR0913 - one argument for each option
    ctx: click.Context,
    *,
    output: str,
    quick: bool,
    explain: str | None,
    btf: Path | None,
    config: Path | None,
    modules: tuple[Path, ...],
    release: str | None,
    objects: Path | None,
    overrides: tuple[str, ...],
    no_cache: bool,
) -> None:
    """Tell what this kernel can run, and why not more.

    Loads the programs that Kmesh would run, attaches them where no process lives, and tries what
    they do on sockets of its own. Nothing of it stays on the host.

    \b
    kmesh probe                              the report, for people
    kmesh probe --explain sockmap.egress     all that is known about one capability
    kmesh probe --output json | jq .mode     for machines; the form has a version and a schema
    kmesh probe --btf vmlinux --config config-6.1.0 --release 6.1.0-18-amd64
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from runtime.probe import run

    chosen, named = _objects(objects), frozenset(overrides)
    if btf is None:
        if config or release or modules:
            raise click.UsageError(
                "--config, --module-btf and --release describe the kernel of --btf FILE"
            )
        report = run.probe(objects=chosen, quick=quick, overrides=named, cache=not no_cache)
    else:
        report = run.probe_offline(
            btf=btf,
            config=config,
            release=release,
            objects=chosen,
            modules=modules,
            overrides=named,
        )
    if explain is not None:
        from runtime.cli.probe_explain import show

        show(report, explain, as_json=output == "json")
    elif output == "json":
        ui.print_json(report.to_json())
    else:
        from runtime.cli.probe_table import show_report

        show_report(report)
    ctx.exit(_NEITHER if report.mode.mode == "none" else 0)


def _objects(said: Path | None) -> Path | None:
    """The objects to judge: without any the report still tells about the kernel."""
    from runtime.objects.locate import objects_dir

    if said is not None:
        return said
    try:
        return objects_dir()
    except KmeshError as error:
        click.echo(f"warning: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        return None
