# SPDX-License-Identifier: Apache-2.0
"""Answers without a daemon: read from the kernel's pinned maps, and said to be so.

The maps know addresses and weights, no names; they are what connections meet at this very moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime import ui
from runtime.cli.options import daemon
from runtime.control.rundir import RunDir, default_pins
from runtime.server.client import DaemonDownError

if TYPE_CHECKING:
    from runtime.kernel.reader import PinnedTables

Json = Mapping[str, Any]
Read = Callable[["PinnedTables"], Any]

DOWN = 3  # exit status, as of `systemctl status`


def ask_or_read(
    question: str, *, run_dir: Path, pins: Path, read: Read
) -> tuple[Any, DaemonDownError | None]:
    """Ask the daemon; where none answers read the maps, and warn on standard error.

    Args:
        question: the daemon's path.
        run_dir: its run directory.
        pins: where maps are pinned, unless the run directory says otherwise.
        read: gives the answer from the maps.

    Returns:
        the answer, and why it is not the daemon's; None when it is.

    Raises:
        DaemonDownError: no daemon, and nothing is pinned; or its socket must not be used.
        KmeshError: the daemon refuses, or the maps cannot be read.
    """
    client = daemon(run_dir)
    try:
        return client.get(question), None
    except DaemonDownError as error:
        if client.is_remote or isinstance(error.__cause__, PermissionError):
            raise
        answer, where = _read(run_dir, pins, read, down=error)
        state = "does not answer" if isinstance(error.__cause__, TimeoutError) else "is down"
        source = f"read from the kernel's maps at {where}"
        click.echo(f"warning: daemon {state} ({error}); {source}", err=True)
        return answer, error


def _read(run_dir: Path, pins: Path, read: Read, *, down: DaemonDownError) -> tuple[Any, Path]:
    from runtime.kernel.reader import NothingPinnedError, open_tables

    state = RunDir(run_dir).read()
    noted = Path(state.pins) if state and state.pins and pins == default_pins() else pins
    for place in dict.fromkeys((noted, pins)):
        try:
            with open_tables(place) as tables:
                return read(tables), place
        except NothingPinnedError:
            continue
    raise down


def percent(share: float) -> str:
    """A share as people read it; what is not nothing does not look like nothing."""
    return "< 0.01 %" if 0 < share < 0.01 else f"{round(share, 2):g} %"


def from_maps(answer: Json, down: DaemonDownError) -> Json:
    """An answer as JSON, with where it is from."""
    return {"read_from": "kernel maps", "daemon": str(down), **answer}


def read_status(tables: PinnedTables) -> Json:
    from runtime.control.pinned import describe_status

    return describe_status(tables)


def read_services(tables: PinnedTables) -> Json:
    from runtime.control.pinned import describe_services

    return {"services": describe_services(tables)}


def read_workloads(tables: PinnedTables) -> Json:
    from runtime.control.pinned import describe_workloads

    return {"workloads": describe_workloads(tables)}


def read_policies(tables: PinnedTables) -> Json:
    from dataclasses import asdict

    from runtime.kernel.guards import read_guards

    return {"guarded": [asdict(one) for one in read_guards(tables.pins)]}


def show(answer: Json, down: DaemonDownError, *, output: str) -> None:
    """Print what was read, in the form that fits it."""
    if output == "json":
        ui.print_json(from_maps(answer, down))
    elif "services" in answer:
        columns = ("ADDRESS", "VIA", "ENDPOINTS")
        ui.print_table(columns, map(_service_row, answer["services"]), beneath=("ENDPOINTS",))
    elif "workloads" in answer:
        rows = ((one["address"], ", ".join(one["serves"])) for one in answer["workloads"])
        ui.print_table(("ADDRESS", "SERVES"), rows, beneath=("SERVES",))
    elif "guarded" in answer:
        ui.print_table(_GUARD_COLUMNS, map(_guard_row, answer["guarded"]))
    else:
        for name, value in _status_lines(answer):
            click.echo(f"{name + ':' if name else '':<12} {value}")


def _service_row(service: Json) -> tuple[str, ...]:
    endpoints = [f"{one['to']} {percent(one['share_percent'])}" for one in service["endpoints"]]
    return (
        service["frontend"],
        "waypoint" if service["waypoint"] else "direct",
        ", ".join(endpoints) or "none: refused",
    )


_GUARD_COLUMNS = ("ADDRESS", "POLICY SET", "OTHERWISE", "HITS", "NO ALLOW POLICY MATCHED")


def _guard_row(guard: Json) -> tuple[str, ...]:
    refused = f"{guard['refused_by_default']} refused" if guard["refuses_by_default"] else "-"
    otherwise = "refused" if guard["refuses_by_default"] else "allowed"
    if guard["closed"]:
        otherwise = "everyone refused: the policies did not fit"
    return (guard["address"], f"{guard['set']:016x}", otherwise, str(guard["decided"]), refused)


def _status_lines(facts: Json) -> Iterable[tuple[str, str]]:
    counts = facts["counts"]
    yield "daemon", "down: nothing changes in the kernel until it is started again"
    yield "path", f"{facts['path']}, still pinned at {facts['pins']}"
    yield (
        "serves",
        ui.count(counts["service_ports"], "service port")
        + f", {ui.count(counts['endpoints'], 'endpoint')}",
    )
    for cgroup, programs in facts["programs"].items():
        yield "attached", f"{cgroup}: {ui.count(len(programs), 'program')}"
    if facts["network_namespaces"]:
        yield "governs", ui.count(facts["network_namespaces"], "network namespace")
    if not facts["programs"]:
        yield "attached", "nowhere: no process is managed"
