# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build plan`."""

from __future__ import annotations

from typing import Any

import click

from builder.commands.options import base_options, wishes
from runtime import ui


@click.command()
@base_options
@ui.output_option
def plan(
    *,
    tag: str,
    hub: str,
    mirror: str | None,
    bootstrap: bool,
    names: tuple[str, ...],
    output: str,
    **bases: Any,
) -> None:
    """Tell what `kmesh-build images` would do with the same options, and why. Needs no Docker engine."""
    from builder.checkout import find_root, read_checkout
    from builder.plan import make_plan, to_json
    from builder.recipes import recipe, recipes

    checkout = read_checkout(find_root())
    chosen = [recipe(name) for name in names] or recipes()
    plans = make_plan(chosen, wishes(**bases), hub=hub, tag=tag, bootstrap=bootstrap, mirror=mirror)
    engine = _engine()
    if output == "json":
        ui.print_json(to_json(checkout, plans, engine))
        return
    click.echo(f"Kmesh {checkout.version}, commit {checkout.revision}, dated {checkout.created}")
    click.echo(f"Engine: {engine}\n")
    ui.print_table(
        ("Image", "Carries", "Base", "Why"),
        [(p.reference, p.image.carries, p.choice.label, p.choice.reason) for p in plans],
        beneath=("Carries", "Why"),
    )
    for item in plans:
        click.echo(f"\n{item.image.name}:")
        for number, step in enumerate(item.steps, 1):
            click.echo(f"  {number}. {step}")


def _engine() -> str:
    from builder.cache import cache_dir
    from builder.engine import Engine, EngineError
    from builder.private_engine import PrivateEngine

    try:
        return Engine.connect().description
    except EngineError:
        pass
    private = PrivateEngine.of(cache_dir())
    verb = (
        "the private one that runs"
        if private.running()
        else "none answers: a private one is started"
    )
    return f"{verb} (data in {private.data})"
