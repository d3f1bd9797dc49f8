# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl authz`: whether a node's kernel enforces authorization policies, and turning that off for a while."""

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
    """Turn the enforcement of authorization policies on one node's kernel off and on again.

    For finding out whether a policy is what stands in the way. While it is off every new connection
    to this node's workloads is let through, at once and without a change to any policy; policies
    at a waypoint still hold. It is never remembered: a daemon that starts enforces. Connections
    made meanwhile stay when it is on again, as policies judge new ones.

    \b
    Example:
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
