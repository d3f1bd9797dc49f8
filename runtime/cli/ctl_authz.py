# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl authz`: what policies say, whether a node's kernel enforces them, and turning that off for a while."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from runtime import ui
from runtime.cli.options import daemon, run_dir_option, tell

_WARNING = (
    "WARNING: authorization policies are NOT ENFORCED in this node's kernel: its workloads take\n"
    "connections from anyone. `kmeshctl authz enable` ends that, and so does a restart of the daemon."
)


@click.group()
def authz() -> None:
    """What authorization policies say to a request, and whether one node's kernel enforces them.

    `check` names the policy that allows or denies a request; nothing is sent.

    `disable` is for finding out whether a policy is what stands in the way. While it is off every new connection
    to this node's workloads is let through, at once and without a change to any policy; policies
    at a waypoint still hold. It is never remembered: a daemon that starts enforces. Connections
    made meanwhile stay when it is on again, as policies judge new ones.

    \b
    Example:
      kmeshctl authz check --service shop/reviews --namespace web -- GET /admin
      kmeshctl authz status
      kmeshctl --node worker-1 authz disable
      kmeshctl --node worker-1 authz enable
    """  # noqa: D301 - \b is click's mark for "do not wrap"


@authz.command()
@run_dir_option
@ui.output_option
def status(run_dir: Path, output: str) -> None:
    """Whether policies are enforced, and how many there are."""
    _show(daemon(run_dir).get("/authz"), output=output)


@authz.command()
@run_dir_option
@ui.output_option
def enable(run_dir: Path, output: str) -> None:
    """Enforce policies again, for new connections."""
    _switch(run_dir, on=True, output=output)


@authz.command()
@run_dir_option
@ui.output_option
def disable(run_dir: Path, output: str) -> None:
    """Let every new connection through, until told otherwise or until the daemon starts anew."""
    _switch(run_dir, on=False, output=output)


@authz.command()
@click.argument("words", metavar="[--] METHOD PATH", nargs=-1, required=True)
@click.option(
    "--service", required=True, metavar="SERVICE", help="To whom: NAMESPACE/NAME, or its host."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The service's port, where it has many."
)
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'",
    help="A header of the request; Host is the service's without.",
)  # fmt: skip
@click.option(
    "--principal",
    metavar="PRINCIPAL",
    help="Who sends it: cluster.local/ns/NAMESPACE/sa/ACCOUNT.",
)
@click.option("--namespace", help="Or its namespace alone, with the service account default.")
@click.option("--ip", help="The client's address.")
@run_dir_option
@ui.output_option
def check(
    words: tuple[str, ...], *, headers: tuple[str, ...], run_dir: Path, output: str, **asked: Any
) -> None:
    """Whether a request is let through, and which rule of which policy says so.

    Judged by the policies on requests (of the gate, or of the waypoint) and those on connections
    (of the kernel). A client with neither --principal nor --namespace has no identity. Nothing is sent.

    \b
    Example:
      kmeshctl authz check --service shop/reviews --namespace web -- GET /reviews/1
      kmeshctl authz check --service shop/reviews --ip 10.0.0.9 -- POST /admin -H 'x-role: none'
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from runtime.cli.ctl_request import check_lines, parse_request

    method, target, more = parse_request(words)
    every = [*headers, *more]
    told = {name: value for name, value in asked.items() if value is not None}
    options = [word for name, value in told.items() for word in (f"--{name}", str(value))]
    same = ["authz", "check", *options, *(w for one in every for w in ("-H", one))]
    body = {**told, "method": method, "target": target, "headers": every}
    answer = tell(run_dir, "/authz/check", body, words=[*same, "--", method, target])
    if output == "json":
        ui.print_json(answer)
    else:
        click.echo("\n".join(check_lines(answer)))


def _switch(run_dir: Path, *, on: bool, output: str) -> None:
    words = ("authz", "enable" if on else "disable")
    _show(tell(run_dir, "/authz", {"enable": on}, words=words), output=output)


def _show(facts: Mapping[str, Any], *, output: str) -> None:
    if not facts["enforced"]:
        click.secho(_WARNING, fg="red", bold=True, err=True)
    if output == "json":
        ui.print_json(facts)
        return
    state = "enforced" if facts["enforced"] else f"NOT enforced since {facts['disabled_since']}"
    click.echo(f"policies: {state}; {ui.count(facts['policies'], 'policy', 'policies')} known")
    click.echo(f"network namespaces guarded: {facts['guarded']}")
