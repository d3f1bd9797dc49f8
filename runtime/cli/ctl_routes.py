# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl routes`: where each HTTP route runs, in the kernel or at the waypoint, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from runtime import ui
from runtime.cli.options import daemon, run_dir_option

Json = Mapping[str, Any]
_SECONDS = 60  # a mesh of ten thousand routes


@click.command()
@click.option("--service", metavar="SERVICE", help="Of one service: NAMESPACE/NAME, or its host.")
@run_dir_option
@ui.output_option
def routes(service: str | None, run_dir: Path, output: str) -> None:
    """Where each HTTP route runs, and why.

    Routes are told in the order in which they are tried: the first that matches takes a request. What
    the kernel cannot do is done by the waypoint, and the reason names the field that asks for it. Where
    the enhanced path does not run, all are at the waypoint, and those that could be in the kernel are
    told.

    Where it runs, requests that are over are counted: HITS, and BY whom they were served (the kernel sent
    them, the gate did, a waypoint did), how many had a 5xx, and within which time half of them and 99 %
    had their whole response. Counts go on when routes change and when the daemon or the gate is another.

    \b
    Example:
      kmeshctl routes
      kmeshctl routes --service shop/reviews
      kmeshctl routes --output json
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    asked = f"?{urlencode({'service': service})}" if service else ""
    answer = daemon(run_dir).get(f"/routes{asked}", seconds=_SECONDS)
    if output == "json":
        ui.print_json(answer)
        return
    if answer["routes"]:
        counted = any(each.get("counts") for each in answer["routes"])
        columns: tuple[str, ...] = ("SERVICE", "PORT", "ROUTE", "MATCH", "DOES", "PLACE")
        rows = (_row(each, answer["why_not"], counted=counted) for each in answer["routes"])
        columns = (*columns, *(_COUNTED if counted else ()), "WHY")
        ui.print_table(columns, rows, beneath=("MATCH", "DOES", "BY", "WHY"))
    if answer["note"]:
        click.echo(answer["note"])
    if answer["routes"] and answer["why_not"]:
        able = sum(each["able"] for each in answer["routes"])
        total = ui.count(len(answer["routes"]), "route")
        click.echo(f"\n{answer['why_not']}\n{able} of {total} could run in the kernel")


_COUNTED = ("HITS", "BY", "5XX", "P50", "P99")


def _row(route: Json, why_not: str, *, counted: bool) -> tuple[str, ...]:
    namespace, _, hostname = route["service"].partition("/")
    number = f"{route['index']}" if route["index"] else "-"
    return (
        f"{namespace}/{hostname.partition('.')[0]}",
        str(route["port"]),
        f"{number} {route['route']}".rstrip(),
        route["match"],
        route["action"],
        route["place"],
        *(_counts(route["counts"]) if counted else ()),
        "; ".join((*_guards(route), *(why for why in route["why"] if why != why_not))) or "-",
    )


def _guards(route: Json) -> Iterator[str]:
    policies = route.get("policies")
    if policies:
        yield f"guarded by {', '.join(policies)}"


def _counts(counts: Json | None) -> tuple[str, ...]:
    if not counts or not counts["hits"]:
        return ("0", "-", "-", "-", "-")
    by = [
        f"{100 * count / counts['hits']:.0f} % {name}"
        for name, count in counts["by"].items()
        if count
    ]
    return (
        str(counts["hits"]),
        ", ".join(by),
        str(counts["classes"]["5xx"]),
        _time(counts["p50_ms"]),
        _time(counts["p99_ms"]),
    )


def _time(ms: float | None) -> str:
    """Two digits that count: buckets are a factor of two apart."""
    if ms is None:
        return "-"
    return f"{ms:.2g} ms" if ms < 1000 else f"{ms / 1000:.2g} s"
