# SPDX-License-Identifier: Apache-2.0
"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from runtime.control.rundir import PINS, RUN_DIR, default_pins, default_run_dir
from runtime.server.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])


def run_dir_option(function: _Command) -> _Command:
    return click.option(
        "--run-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_run_dir,
        show_default=f"{RUN_DIR}, or KMESH_RUN_DIR",
        help="Where the daemon keeps its lock, its socket and its state.",
    )(function)


def pins_option(function: _Command) -> _Command:
    return click.option(
        "--pins",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_pins,
        show_default=f"{PINS}, or KMESH_PINS",
        help="Where maps and programs are pinned (a directory of a bpffs).",
    )(function)


def daemon(run_dir: Path) -> Client:
    """The daemon that has this run directory; or, where the user named one, that of a cluster's node."""
    context = click.get_current_context(silent=True)
    node = context.find_root().params.get("node") if context else None
    if node is None:
        return Client(run_dir / "kmesh.sock")
    from runtime.cli.kubeconfig import user_cluster
    from runtime.control.fleet import Fleet

    return Fleet(user_cluster()).client(node)
