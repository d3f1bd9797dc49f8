# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build matrix`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime import ui

if TYPE_CHECKING:
    from builder.fleet import Fleet
    from builder.fleet_changes import Change

_SHOWN = 3


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
    what only a running kernel can tell is taken to be as it should. Nodes that run the same mode and
    lack the same are one line; below it each thing that could be done, and what it alone would gain.

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
    from builder.fleet_groups import folded

    ui.print_table(
        ("Mode", "Nodes", "Kernels", "The kernel itself", "Lacking"),
        [
            (
                group.mode,
                len(group.nodes),
                _some(group.releases),
                group.kernel_mode,
                ", ".join(folded(group.lacking)) or "; ".join(group.why),
            )
            for group in fleet.groups
        ],
        beneath=("Why not better",),
    )
    told = ", ".join(f"{count} {mode}" for mode, count in sorted(fleet.modes.items()))
    click.echo(f"\n{ui.count(sum(fleet.modes.values()), 'node')}: {told}")
    if fleet.changes:
        click.echo("\nWhat each of these alone would move to a better mode:")
    for change in fleet.changes:
        click.echo(f"  {_gain(change)}: {change.what}")


def _some(names: Sequence[str]) -> str:
    more = f", {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _gain(change: Change) -> str:
    if not change.lifts:
        return f"none ({ui.count(change.wanted, 'node')} cannot do without, and lack more)"
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
                "kernel_mode": kernel.kernel_mode,
                "reasons": list(kernel.report.mode.reasons) if kernel.report else [],
                "unverified": list(kernel.report.mode.unverified) if kernel.report else [],
                "problem": kernel.problem,
            }
            for kernel in fleet.kernels
        ],
        "groups": [
            {
                "mode": group.mode,
                "kernel_mode": group.kernel_mode,
                "lacking": list(group.lacking),
                "why": list(group.why),
                "releases": list(group.releases),
                "nodes": list(group.nodes),
            }
            for group in fleet.groups
        ],
        "changes": [
            {"what": change.what, "lifts": dict(change.lifts), "wanted": change.wanted}
            for change in fleet.changes
        ],
    }
