# SPDX-License-Identifier: Apache-2.0
"""Options that commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from builder.bases import Wish

_Command = TypeVar("_Command", bound=Callable[..., Any])

# As distribution/reference has them.
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HUB = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*/?")
HUB = "ghcr.io/kmesh-net"


def _matching(
    pattern: re.Pattern[str], what: str
) -> Callable[[click.Context, click.Parameter, str], str]:
    """A callback that refuses what the engine would refuse only after everything is built."""

    def check(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
        if not pattern.fullmatch(value):
            raise click.BadParameter(f"{value!r} is not {what}")
        return value

    return check


def base_options(function: _Command) -> _Command:
    """Everything that decides on names and bases."""
    options = [
        click.option(
            "--tag",
            default="latest",
            show_default=True,
            callback=_matching(_TAG, "a tag: letters, digits, `_`, `.` and `-`"),
            help="Tag of the images.",
        ),
        click.option(
            "--hub",
            default=HUB,
            show_default=True,
            callback=_matching(
                _HUB, "a hub: a registry and lower-case names, such as localhost:5000/me"
            ),
            help="What stands before their names.",
        ),
        click.option("--base-generic", metavar="REF", help="Base of the generic image, to pull."),
        click.option("--base-enhanced", metavar="REF", help="Base of the enhanced image, to pull."),
        click.option("--base-compile", metavar="REF", help="Base of the compile image, to pull."),
        click.option(
            "--base-repo",
            metavar="URI",
            help="An openEuler package repository, for the enhanced image.",
        ),
        click.option(
            "--base-key",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="Public keys that packages of --base-repo must be signed with.",
        ),
        click.option(
            "--base-archive",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="An openEuler root archive (tar), for the enhanced image.",
        ),
        click.option(
            "--mirror", metavar="URI", help="Debian mirror; without, what apt on this host uses."
        ),
        click.option(
            "--bootstrap",
            is_flag=True,
            help="Make bases from packages, whether a registry answers or not.",
        ),
        click.option(
            "--image",
            "names",
            multiple=True,
            metavar="NAME",
            help="Only this image: generic, enhanced or compile. May be repeated.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def wishes(
    *,
    base_generic: str | None,
    base_enhanced: str | None,
    base_compile: str | None,
    base_repo: str | None,
    base_key: Path | None,
    base_archive: Path | None,
) -> dict[str, Wish]:
    """What was said about bases, for each image.

    Raises:
        click.UsageError: more than one thing was said about the enhanced image's, or a key without a
            repository.
    """
    given = [base_enhanced, base_repo, base_archive]
    if sum(item is not None for item in given) > 1:
        raise click.UsageError("give one of --base-enhanced, --base-repo and --base-archive")
    if base_key and not base_repo:
        raise click.UsageError("--base-key is for packages of a --base-repo")
    return {
        "generic": Wish(reference=base_generic),
        "enhanced": Wish(base_enhanced, base_archive, base_repo, base_key),
        "compile": Wish(reference=base_compile or base_generic),
    }
