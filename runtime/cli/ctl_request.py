# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl explain --service`: what happens to one HTTP request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from runtime import ui
from runtime.cli.ctl_maps import percent
from runtime.cli.options import tell
from runtime.server.client import DaemonDownError

Json = Mapping[str, Any]
_SHOWN = 20  # endpoints of a cluster


def ask_of_request(
    service: str,
    words: Sequence[str],
    *,
    headers: Sequence[str],
    port: int | None,
    send: bool,
    sender: str,
    run_dir: Path,
    pins: Path,
) -> Json:
    """Ask the daemon, or the maps where it is down.

    Args:
        words: METHOD and PATH, and what stands after `--` as curl has it.
    """
    method, target, more = parse_request(words)
    every = [*headers, *more]
    asked = {
        "service": service, "port": port, "method": method, "target": target, "headers": every,
        "send": send, "from": sender,
    }  # fmt: skip
    same = [
        "explain", "--service", service, *(["--port", str(port)] if port else []),
        *(["--send"] if send else []), *(["--from", sender] if sender else []),
        *(word for one in every for word in ("-H", one)), "--", method, target,
    ]  # fmt: skip
    if send:
        click.echo(f"sending one request, {method} {target}, to {service}", err=True)
    try:
        answer: Json = tell(run_dir, "/explain", asked, words=same)
    except DaemonDownError as down:
        if send or isinstance(down.__cause__, PermissionError):
            raise
        answer = _from_maps(asked, pins, down)
    return answer


def _from_maps(asked: Json, pins: Path, down: DaemonDownError) -> Json:
    """Without a daemon: of an address, as the maps know no names."""
    from runtime.control.explain_request import HttpQuestion, explain_request, request_head
    from runtime.kernel.http_tables import open_http_tables

    try:
        address = ip_address(asked["service"].strip("[]"))
    except ValueError:
        hint = "the kernel's maps know no names: give the service's address as --service"
        raise DaemonDownError(str(down), hint=hint) from down
    port = asked["port"] or 80
    host = f"[{address}]" if address.version == 6 else str(address)
    head = request_head(asked["method"], asked["target"], asked["headers"], host=host, port=port)
    with open_http_tables(pins) as tables:
        click.echo(f"warning: daemon is down ({down}); read from the kernel's maps", err=True)
        question = HttpQuestion(address=address, port=port, head=head)
        answer = explain_request(question, tables, routes={}, clusters={})
    return {"service": str(address), **answer, "live": None, "differs": []}


def parse_request(words: Sequence[str]) -> tuple[str, str, list[str]]:
    """METHOD, PATH and the headers after them, as curl has them."""
    if len(words) < 2:
        raise click.UsageError("say which request: -- GET /path -H 'name: value'")
    method, target, *rest = words
    headers: list[str] = []
    while rest:
        option, *rest = rest
        if option not in {"-H", "--header"} or not rest:
            raise click.UsageError(f"{option!r} is neither -H nor a header after it")
        headers.append(rest.pop(0))
    return method.upper(), target, headers


def request_lines(answer: Json) -> Iterator[str]:
    """An answer as people read it."""
    yield f"{answer['request']} to {answer['service']} ({answer['address']} port {answer['port']})"
    route = answer["route"]
    if route:
        name = route["name"] or "of no name known here"
        host = (
            f", {route['index']} of virtual host {route['virtual_host']}" if route["index"] else ""
        )
        yield f"  route:       {name}{host}"
    if answer["authorization"]:
        yield f"  policy:      {answer['authorization']['meaning']}"
    status = f", status {answer['status']}" if answer["status"] else ""
    yield f"  does:        {answer['does']}{status}"
    yield f"  match cost:  {answer['steps']} steps"
    for cluster in answer["clusters"]:
        share = percent(cluster["share_percent"])
        yield f"  cluster:     {cluster['name'] or cluster['cluster']}, {share} of its requests"
        endpoints = cluster["endpoints"]
        for words in (*cluster["chosen"], *cluster["governed"]):
            yield f"               {words}"
        if not endpoints:
            yield "               no endpoint: 503"
        for one in endpoints[:_SHOWN]:
            where = ui.host_port(one["address"], one["port"])
            yield f"               {where}, {percent(one['share_percent'])}"
        if len(endpoints) > _SHOWN:
            yield f"               and {len(endpoints) - _SHOWN} more"
    yield from _live(answer)


def _live(answer: Json) -> Iterator[str]:
    live = answer["live"]
    if not live:
        yield "  nothing was sent; --send sends it and compares"
        return
    where = live["endpoint"] or "nobody"
    yield (
        f"  sent:        from {live['from']}: status {live['status']} from {where}, served by the "
        f"{live['served_by']}, {live['duration_ms']} ms"
    )
    if live["reason"]:
        yield f"               {live['reason']}"
    for difference in answer["differs"]:
        yield f"  DIFFERS:     {difference}"
    if not answer["differs"]:
        yield "  the live path chose as computed"


_VERDICTS = {True: "allowed", False: "DENIED", None: "cannot be told"}


def check_lines(answer: Json) -> Iterator[str]:
    """Whether a request is let through, as people read it."""
    yield f"{answer['request']} to {answer['service']} ({answer['address']} port {answer['port']})"
    client = answer["client"]
    who = client["principal"] or "without an identity"
    yield f"  client:      {who}{', ' + client['address'] if client['address'] else ''}"
    http = answer["http"]
    if http:
        route = http["route"]
        if route:
            name = route["name"] or "(no name)"
            yield f"  route:       {name}, {route['index']} of virtual host {route['virtual_host']}"
        by = f"; judged by the {http['by']}" if http["policies"] or not http["allowed"] else ""
        yield f"  request:     {http['meaning']}{by}"
        for note in http["notes"]:
            yield f"  note:        not looked at: {note}"
    else:
        yield "  request:     no HTTP is known at this port: connections alone are judged"
    for one in answer["connections"]:
        yield f"  connection:  to {ui.count(one['endpoints'], 'endpoint')}: {one['reason']}"
        if one["http_policies"]:
            keys = ", ".join(one["http_policies"])
            yield f"  note:        a waypoint judges what {keys} asks of requests"
    yield f"{_VERDICTS[answer['allowed']]}"
