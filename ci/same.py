# SPDX-License-Identifier: Apache-2.0
"""Whether a second `make docker` changed nothing: `python -m ci.same FIRST.json AGAIN.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from runtime import ui
from runtime.errors import KmeshError


def same(first: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    """Compare two reports of `kmesh-build images`; returns one line about it.

    Raises:
        KmeshError: the second build made or changed something.
    """
    ids = [
        {each["reference"]: each["id"] for each in report["images"]} for report in (first, again)
    ]
    for reference in sorted({*ids[0], *ids[1]}):
        before, after = (found.get(reference, "missing") for found in ids)
        if before != after:
            raise KmeshError(
                f"{reference} is another image the second time: {before}, then {after}"
            )
    for each in again["images"]:
        if each["state"] != "unchanged":
            raise KmeshError(f"{each['reference']} was {each['state']} the second time")
    return f"{len(ids[0])} images unchanged in {again['seconds']} s ({first['seconds']} s before)"


@click.command()
@click.argument("first", type=click.Path(path_type=Path, exists=True))
@click.argument("again", type=click.Path(path_type=Path, exists=True))
def compare(first: Path, again: Path) -> None:
    """Compare what two runs of `make docker OUTPUT=json` printed."""
    try:
        reports = [json.loads(path.read_text()) for path in (first, again)]
    except ValueError as error:
        raise KmeshError(f"`make docker OUTPUT=json` printed more than JSON: {error}") from error
    click.echo(same(*reports))


if __name__ == "__main__":
    ui.main(compare, name="python -m ci.same")
