# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl waypoint`: Istio's waypoints, which take what the kernel does not route."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
import yaml

from runtime import ui
from runtime.cli.kubeconfig import user_cluster
from runtime.cluster import waypoint as waypoints
from runtime.errors import KmeshError

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LOOK_SECONDS = 1.0

_namespace = click.option("-n", "--namespace", default="default", show_default=True)


def _describing(function: _Command) -> _Command:
    """What a waypoint is made of."""
    for option in (
        click.option("--revision", default="", help="Istio's revision, where there are several."),
        click.option(
            "--for",
            "traffic",
            type=click.Choice(waypoints.TRAFFIC),
            help="Which traffic it is for; without: service, as Istio has it.",
        ),
        click.option("--name", default="waypoint", show_default=True),
        _namespace,
    ):
        function = option(function)
    return function


@click.group()
def waypoint() -> None:
    """Istio's waypoints: make, list, delete; as `istioctl waypoint` does.

    \b
    Example:
      kmeshctl waypoint apply -n bookstore --enroll-namespace --wait
      kmeshctl waypoint list -A
    """  # noqa: D301 - \b is click's mark for "do not wrap"


@waypoint.command()
@_describing
def generate(namespace: str, name: str, traffic: str | None, revision: str) -> None:
    """Print the Gateway that apply would make, as YAML."""
    made = waypoints.gateway(name, namespace, traffic=traffic or "", revision=revision)
    click.echo(yaml.safe_dump(made, sort_keys=False), nl=False)


@waypoint.command()
@_describing
@click.option("--enroll-namespace", is_flag=True, help="Have the namespace use it.")
@click.option("--wait", is_flag=True, help="Until Istio has programmed it.")
@click.option("--timeout", type=float, default=90, show_default=True, help="Seconds, with --wait.")
def apply(
    *,
    namespace: str,
    name: str,
    traffic: str | None,
    revision: str,
    enroll_namespace: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Make a waypoint in a namespace, or change it."""
    api = user_cluster()
    made = waypoints.gateway(name, namespace, traffic=traffic or "", revision=revision)
    waypoints.apply(api, made)
    click.echo(f"waypoint {namespace}/{name} applied")
    if enroll_namespace:
        waypoints.enroll_namespace(api, namespace, name)
        click.echo(f"namespace {namespace} labelled {waypoints.USE}={name}")
    if wait:
        _wait(lambda: _one(api, namespace, name), seconds=timeout)
        click.echo(f"waypoint {namespace}/{name} is programmed")


def _one(api: Any, namespace: str, name: str) -> Mapping[str, Any]:
    for found in waypoints.find(api, namespace):
        if found["metadata"]["name"] == name:
            return waypoints.describe(found)
    raise KmeshError(f"no waypoint {namespace}/{name}", hint="`kmeshctl waypoint list -A` tells")


def _wait(ask: Callable[[], Mapping[str, Any]], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not (state := ask())["programmed"]:
        if time.monotonic() > deadline:
            raise KmeshError(f"not programmed within {seconds:g} s: {state['reason']}")
        time.sleep(_LOOK_SECONDS)


@waypoint.command()
@_namespace
@click.argument("name", default="waypoint")
@ui.output_option
def status(namespace: str, name: str, output: str) -> None:
    """What Istio says of a waypoint. Exit status 1 where it is not programmed."""
    state = _one(user_cluster(), namespace, name)
    _show([state], output)
    if not state["programmed"]:
        raise KmeshError(f"waypoint {namespace}/{name} is not programmed: {state['reason']}")


@waypoint.command("list")
@_namespace
@click.option("-A", "--all-namespaces", is_flag=True)
@ui.output_option
def list_(*, namespace: str, all_namespaces: bool, output: str) -> None:
    """The waypoints of a namespace, or of all."""
    found = waypoints.find(user_cluster(), None if all_namespaces else namespace)
    _show(map(waypoints.describe, found), output)


def _show(states: Iterable[Mapping[str, Any]], output: str) -> None:
    if output == "json":
        ui.print_json(list(states))
        return
    columns = ("NAMESPACE", "NAME", "FOR", "PROGRAMMED", "ADDRESSES", "REMARK")
    ui.print_table(columns, map(_row, states), beneath=("REMARK",))


def _row(state: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        state["namespace"],
        state["name"],
        state["for"],
        "yes" if state["programmed"] else "no",
        ", ".join(state["addresses"]) or "-",
        "-" if state["programmed"] else state["reason"],
    )


@waypoint.command()
@_namespace
@click.option("--all", "everything", is_flag=True, help="Every waypoint of the namespace.")
@click.argument("names", nargs=-1)
def delete(*, namespace: str, everything: bool, names: tuple[str, ...]) -> None:
    """Delete waypoints by name."""
    if everything == bool(names):
        raise click.UsageError("name waypoints, or say --all")
    api = user_cluster()
    there = [found["metadata"]["name"] for found in waypoints.find(api, namespace)]
    for name in there if everything else names:
        if name not in there:
            raise KmeshError(f"no waypoint {namespace}/{name}")
        waypoints.delete(api, namespace, name)
        click.echo(f"waypoint {namespace}/{name} deleted")
