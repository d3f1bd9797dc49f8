# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl` against a cluster: nodes and pods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from runtime import ui
from runtime.cli.kubeconfig import user_cluster
from runtime.cli.options import daemon, run_dir_option
from runtime.errors import KmeshError

Json = Mapping[str, Any]


def complete_node(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The nodes that have a daemon; none where the cluster does not tell."""
    from runtime.cluster.client import Cluster
    from runtime.control.fleet import Fleet

    options = context.find_root().params
    try:
        api = Cluster.by_kubeconfig(options.get("kubeconfig"), context=options.get("context"))
        found = Fleet(api).daemons()
    except KmeshError:
        return []
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


@click.command()
@ui.output_option
def nodes(output: str) -> None:
    """Every node of the cluster: its kernel, what runs there, and why not more.

    \b
    Example:
      kmeshctl nodes
      kmeshctl --context production nodes --output json
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from runtime.control.fleet import Fleet

    found = Fleet(user_cluster()).nodes()
    if output == "json":
        ui.print_json(found)
        return
    columns = (
        "NODE",
        "KERNEL",
        "MODE",
        "VERSION",
        "READY",
        "SYNCED",
        "SERVICES",
        "PODS",
        "WHY NOT MORE",
    )
    ui.print_table(columns, map(_node_row, found), beneath=("WHY NOT MORE",))


def _node_row(node: Json) -> tuple[str, ...]:
    return (
        node["node"],
        node["kernel"],
        node["mode"] or "-",
        node["version"] or "-",
        "yes" if node["ready"] else "no",
        node["synced"] or "no",
        *("-" if node[key] is None else str(node[key]) for key in ("services", "pods")),
        "; ".join(node["why"]) or "-",
    )


@click.command()
@run_dir_option
@ui.output_option
def pods(run_dir: Path, output: str) -> None:
    """The node's pods: governed or not, and why.

    \b
    Example:
      kmeshctl --node worker-1 pods
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    found = daemon(run_dir).get("/pods")
    if output == "json":
        ui.print_json(found)
        return
    columns = ("POD", "ADDRESSES", "GOVERNED", "BY", "WHY")
    ui.print_table(columns, map(_pod_row, found), beneath=("WHY",))


def _pod_row(pod: Json) -> tuple[str, ...]:
    return (
        pod["pod"],
        ", ".join(pod["addresses"]) or "-",
        "yes" if pod["governed"] else "no",
        pod["by"] or "-",
        pod["trouble"] or pod["reason"],
    )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what completes kmeshctl's commands, options and nodes in a shell.

    \b
    Example:
      source <(kmeshctl completion bash)
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    made = kind(context.find_root().command, {}, "kmeshctl", "_KMESHCTL_COMPLETE")
    click.echo(made.source())
