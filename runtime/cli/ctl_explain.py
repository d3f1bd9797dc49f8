# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl explain`: what happens to a connection to an address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from runtime import ui
from runtime.cli.ctl_maps import ask_or_read, from_maps, percent
from runtime.cli.options import pins_option, run_dir_option

if TYPE_CHECKING:
    from runtime.kernel.reader import PinnedTables

Json = Mapping[str, Any]


@click.command()
@click.argument("words", metavar="[ADDRESS[:PORT] | [--] METHOD PATH]", nargs=-1)
@click.option(
    "--service", metavar="SERVICE", help="A request to this service: NAMESPACE/NAME, or its host."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The service's port, where it has many."
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header of the request.",
)
@click.option(
    "--send",
    "--live",
    is_flag=True,
    help="Send the request too, as a managed process does, and compare.",
)
@click.option(
    "--from",
    "sender",
    metavar="PID|NETNS",
    default="",
    help="In whose network namespace it is sent.",
)
@click.option(
    "--protocol",
    type=click.Choice(["tcp", "udp"], case_sensitive=False),
    help="One protocol; without it both are looked up.",
)
@run_dir_option
@pins_option
@ui.output_option
def explain(
    words: tuple[str, ...],
    *,
    service: str | None,
    protocol: str | None,
    run_dir: Path,
    pins: Path,
    output: str,
    **request: Any,
) -> None:
    """What happens to a connection to ADDRESS[:PORT], or to a request to a service, and why.

    Looked up in the kernel's own tables, as the programs do for each connection of a managed
    process: the service, its endpoints with their weight and share, who of it is not used and why,
    the waypoint, the policies. With the daemon down the tables alone answer, without names.

    With --service: which route, clusters and endpoints a request meets, by a walk through the tables
    that the kernel routes by. Nothing is sent, unless with --send: then one ordinary request goes to the
    service, which answers it as any other, and what became of it is compared.

    \b
    Example:
      kmeshctl explain 10.96.0.10:80
      kmeshctl explain [fd00::10]:53 --protocol udp
      kmeshctl explain 10.96.0.10 --output json
      kmeshctl explain --service shop/reviews -- GET /reviews/1 -H 'end-user: jason'
      kmeshctl explain --service shop/reviews --send -- GET /reviews/1
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    if service is not None:
        from runtime.cli.ctl_request import ask_of_request, request_lines

        answer = ask_of_request(service, words, run_dir=run_dir, pins=pins, **request)
        if output == "json":
            ui.print_json(answer)
        else:
            click.echo("\n".join(request_lines(answer)))
        return
    if len(words) != 1 or any(request.values()):
        raise click.UsageError("name one ADDRESS[:PORT], or a --service and a METHOD and PATH")
    (address,) = words
    from runtime.control.question import parse_question

    question = parse_question(address, protocol=protocol)

    def read(tables: PinnedTables) -> Json:
        from runtime.control.explain import explain as explain_by_maps

        return explain_by_maps(question, tables, known=None)

    asked = {"to": address, **({"protocol": protocol} if protocol else {})}
    answer, down = ask_or_read(
        f"/explain?{urlencode(asked)}", run_dir=run_dir, pins=pins, read=read
    )
    if output == "json":
        ui.print_json(answer if down is None else from_maps(answer, down))
    else:
        _show(answer)


def _show(answer: Json) -> None:
    if answer["meaning"]:
        click.echo(f"{answer['address']}{_port(answer)}: {answer['meaning']}")
    for number, destination in enumerate(answer["destinations"]):
        if number:
            click.echo()
        _show_destination(destination, named=answer["read_from"] == "daemon")
    for workload in answer["workloads"]:
        click.echo(f"workload {_name(workload)} has this address; {_traits(workload)}")
    if answer["destinations"]:
        click.echo(f"\nfor:  {_managed(answer['managed'])}")
    for note in answer["notes"]:
        click.echo(f"note: {note}")


def _port(answer: Json) -> str:
    port = f" port {answer['port']}" if answer["port"] else ""
    return port + (f" {answer['protocol']}" if answer["protocol"] else "")


def _name(workload: Json) -> str:
    return f"{workload['namespace']}/{workload['name']}"


def _traits(workload: Json) -> str:
    serves = ", ".join(key for key in workload["serves"]) or "nothing"
    state = "ready" if workload["healthy"] else "not ready"
    return f"{state}, serves {serves}, policies: {_policies(workload)}"


def _policies(workload: Json) -> str:
    named = (
        f"{one['key']} ({one['action'].lower()}{', dry run' if one['dry_run'] else ''})"
        for one in workload["policies"]
    )
    return ", ".join(named) or "none"


def _managed(managed: Json) -> str:
    spaces = managed["network_namespaces"]
    if not managed["cgroups"]:
        return "nobody: no process is managed on this node now, and others are never touched"
    where = ", ".join(managed["cgroups"])
    if spaces:
        where += f" ({ui.count(spaces, 'network namespace')})"
    return f"managed processes only, in {where}"


def _show_destination(destination: Json, *, named: bool) -> None:
    click.echo(_headline(destination))
    for name, value in _facts(destination):
        click.echo(f"  {name + ':':<13}{value}")
    if destination["endpoints"]:
        click.echo()
        columns = ("ENDPOINT", "WEIGHT", "SHARE")
        rows = [_endpoint_row(one, named=named) for one in destination["endpoints"]]
        ui.print_table((*columns, *(_NAMED if named else ())), rows, beneath=("POLICIES",))
    if destination["unused"]:
        click.echo()
        rows = [
            (_name(one), ", ".join(one["addresses"]), one["reason"])
            for one in destination["unused"]
        ]
        ui.print_table(("NOT USED", "ADDRESSES", "WHY"), rows, beneath=("WHY",))


_NAMED = ("WORKLOAD", "NODE", "ZONE", "POLICIES")


def _headline(destination: Json) -> str:
    service = destination["service"]
    if service is None:
        return f"{destination['frontend']}  a service's, whose name is not known here"
    port = f", port {service['port_name']}" if service["port_name"] else ""
    return f"{destination['frontend']}  service {service['key']}{port}"


def _facts(destination: Json) -> Iterable[tuple[str, str]]:
    yield "connections", destination["meaning"].removeprefix("connections ")
    if destination["waypoint"]:
        yield "waypoint", destination["waypoint"]
    yield "cluster", destination["cluster"]
    if destination["acceleration"]:
        yield "same node", _accelerated(destination)
    for note in destination["notes"]:
        yield "note", note


def _accelerated(destination: Json) -> str:
    """The reason is often long, and the same for every service: it is told by status."""
    if destination["acceleration"]["on"]:
        return "accelerated where both ends are managed on this node"
    if destination["protocol"] == "TCP" and destination["verdict"] == "balanced":
        return "not accelerated on this node: `kmeshctl status` says why"
    return f"not accelerated: {destination['acceleration']['reason']}"


def _endpoint_row(endpoint: Json, *, named: bool) -> tuple[str, ...]:
    row = (
        ui.host_port(endpoint["address"], endpoint["port"]),
        str(endpoint["weight"]),
        percent(endpoint["share_percent"]),
    )
    if not named:
        return row
    workload = endpoint["workload"]
    if workload is None:
        return (*row, "unknown", "-", "-", "-")
    return (
        *row,
        _name(workload),
        workload["node"] or "-",
        workload["zone"] or "-",
        _policies(workload),
    )
