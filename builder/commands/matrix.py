# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build matrix`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime import ui

if TYPE_CHECKING:
    from builder.fleet import Change, Fleet, Judged

_SHOWN = 5


@click.command()
@click.argument(
    "directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False, exists=True)
)
@click.option(
    "--objects",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Compiled objects; without, the installed ones or the checkout's.",
)
@ui.output_option
def matrix(*, directory: Path, objects: Path | None, output: str) -> None:
    """Judge the kernels of a fleet from their files, for the objects of this build.

    DIR holds RELEASE.btf and RELEASE.config for each kernel, or a directory for each node with `btf`
    (from /sys/kernel/btf/vmlinux), `config` (from /boot) and `release` (uname -r). Nothing is loaded:
    what only a running kernel can tell is taken to be as it should.

    \b
      kmesh-build matrix fleet/
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from builder.fleet import find_evidence, judge_fleet
    from runtime.objects.locate import objects_dir

    fleet = judge_fleet(find_evidence(directory), objects=objects or objects_dir())
    if output == "json":
        ui.print_json(_json(fleet))
        return
    _show(fleet)


def _show(fleet: Fleet) -> None:
    ui.print_table(
        ("Kernel", "Nodes", "Mode", "The kernel itself", "Why not better"),
        [
            (kernel.release, len(kernel.nodes), kernel.mode, _itself(kernel), _why(kernel))
            for kernel in fleet.kernels
        ],
        beneath=("Why not better",),
    )
    told = ", ".join(f"{count} {mode}" for mode, count in sorted(fleet.modes.items()))
    click.echo(f"\n{ui.count(sum(fleet.modes.values()), 'node')}: {told}")
    if fleet.changes:
        click.echo("\nWhat would gain most:")
    for change in fleet.changes[:_SHOWN]:
        click.echo(f"  {_gain(change)}: {change.what}")


def _itself(kernel: Judged) -> str:
    return kernel.report.mode.kernel_mode if kernel.report else "-"


def _why(kernel: Judged) -> str:
    return "; ".join(kernel.report.mode.reasons) if kernel.report else kernel.problem


def _gain(change: Change) -> str:
    return ", ".join(f"{ui.count(count, 'node')} to {mode}" for mode, count in change.lifts.items())


def _json(fleet: Fleet) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "modes": dict(fleet.modes),
        "kernels": [
            {
                "release": kernel.release,
                "nodes": list(kernel.nodes),
                "mode": kernel.mode,
                "kernel_mode": _itself(kernel),
                "reasons": list(kernel.report.mode.reasons) if kernel.report else [],
                "unverified": list(kernel.report.mode.unverified) if kernel.report else [],
                "problem": kernel.problem,
            }
            for kernel in fleet.kernels
        ],
        "changes": [{"what": change.what, "lifts": change.lifts} for change in fleet.changes],
    }
