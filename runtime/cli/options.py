# SPDX-License-Identifier: Apache-2.0
"""Options that several commands take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtime.control.rundir import PINS, RUN_DIR, default_pins, default_run_dir
from runtime.server.client import Client

if TYPE_CHECKING:
    from runtime.control.fleet import Fleet

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
    node = _node()
    return Client(run_dir / "kmesh.sock") if node is None else _fleet().client(node)


def tell(run_dir: Path, path: str, body: Mapping[str, Any], *, words: Sequence[str]) -> Any:
    """Have the daemon change something, which takes its Unix socket; gives its answer.

    On a cluster's node that socket is the pod's: the command is run there, by the right to `exec` in
    pods, as what is reached by port-forward tells things and changes none.

    Args:
        run_dir: of the daemon on this host.
        path: what to tell it.
        body: that, in JSON.
        words: kmeshctl's command that does the same.
    """
    node = _node()
    if node is None:
        return Client(run_dir / "kmesh.sock").post(path, body)
    return json.loads(_fleet().run(node, ["kmeshctl", *words, "--output", "json"]))


def _node() -> str | None:
    """The node of a cluster that the user named."""
    context = click.get_current_context(silent=True)
    return context.find_root().params.get("node") if context else None


def _fleet() -> Fleet:
    from runtime.cli.kubeconfig import user_cluster
    from runtime.control.fleet import Fleet

    return Fleet(user_cluster())
