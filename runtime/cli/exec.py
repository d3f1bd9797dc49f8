# SPDX-License-Identifier: Apache-2.0
"""`kmesh exec`: a command as a managed workload, on a machine with no cluster."""

from __future__ import annotations

import os
from pathlib import Path

import click

from runtime.cli.options import daemon, run_dir_option
from runtime.cli.waiting import wait_for_daemon
from runtime.errors import KmeshError
from runtime.launch.scope import Scope, everyone
from runtime.server.client import Client


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--name", default="exec", show_default=True, help="What to call the workload.")
@click.option(
    "--netns",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="Run it in this network namespace, and govern that instead of a control group: for hosts "
    "whose cgroups cannot tell workloads apart.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a daemon that is not there yet or just starting.",
)
@run_dir_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_(
    ctx: click.Context,
    *,
    name: str,
    netns: Path | None,
    wait: float,
    run_dir: Path,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND so that the running daemon governs its connections.

    The command gets a control group of its own below kmesh/, which is enrolled before the command
    starts and removed when it ends. It has your terminal, gets your signals, and its exit status
    is handed on (127: no such command). It waits for a daemon that is just starting.

    \b
    Example:
      kmesh exec -- curl http://10.96.0.10/
      kmesh exec --name shell -- bash
      kmesh exec --netns /run/netns/shop -- bash
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from runtime.launch.child import CannotStartError

    try:
        client = daemon(run_dir)
        # Without a daemon there is nothing to do, and nothing to clean up.
        wait_for_daemon(client, seconds=wait, who="kmesh exec")
        if netns is not None:
            ctx.exit(_run_in_netns(command, netns.absolute(), client=client))
        ctx.exit(_run(command, name=name, client=client))
    except CannotStartError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        ctx.exit(error.status)


def _run(command: tuple[str, ...], *, name: str, client: Client) -> int:
    from runtime.kernel.cgroup import cgroup2_root
    from runtime.launch.child import run_in_cgroup

    scope = Scope(cgroup2_root(), name=name)
    try:
        client.post("/enroll", {"cgroup": str(scope.path)})
        return run_in_cgroup(command, procs=scope.procs_descriptor())
    finally:
        _leave(scope, client=client)


def _run_in_netns(command: tuple[str, ...], netns: Path, *, client: Client) -> int:
    """It stays managed while anybody else holds it, who may run in it too."""
    from runtime.launch.child import run_in_netns

    body = {"netns": str(netns), "holder": os.getpid()}
    client.post("/enroll", body)
    try:
        return run_in_netns(command, netns)
    finally:
        try:
            client.post("/release", body)
        except KmeshError as error:
            click.echo(f"kmesh exec: not released: {error}", err=True)


def _leave(scope: Scope, *, client: Client) -> None:
    """Release and remove the cgroup, unless the command left processes in it."""
    left = everyone(scope.path)
    if not left:
        try:
            client.post("/release", {"cgroup": str(scope.path)})
        except KmeshError as error:
            click.echo(f"kmesh exec: not released: {error}", err=True)
        left = scope.remove()
    if left:
        pids = ", ".join(map(str, left[:5])) + (", …" if len(left) > 5 else "")
        click.echo(f"kmesh exec: still running, and governed: process {pids}", err=True)
