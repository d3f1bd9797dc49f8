# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl`: ask the running daemon what it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from runtime import ui
from runtime.cli import ctl_maps
from runtime.cli.ctl_authz import authz
from runtime.cli.ctl_cluster import complete_node, completion, nodes, pods
from runtime.cli.ctl_explain import explain
from runtime.cli.ctl_http import gate_lines, http_lines
from runtime.cli.ctl_log import log_
from runtime.cli.ctl_routes import routes
from runtime.cli.ctl_waypoint import waypoint
from runtime.cli.kubeconfig import cluster_options
from runtime.cli.options import daemon, pins_option, run_dir_option
from runtime.cli.status_waypoint import node_waypoint_lines
from runtime.server.client import DaemonDownError

Json = Mapping[str, Any]
_NAMED = 10  # of a list that may be long
_DUMP_SECONDS = 120  # a mesh of 100,000 workloads
# "enable" and "disable" are upstream's words.
_SWITCH = {"on": True, "off": False, "enable": True, "disable": False}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--node",
    metavar="NODE",
    shell_complete=complete_node,
    help="Ask the daemon on this node of a cluster, by port-forward with your kubeconfig.",
)
@cluster_options
@ui.debug_option
def kmeshctl(**_options: Any) -> None:
    """Ask the Kmesh daemon on this node, or on a cluster's, what it does.

    Here it answers over its Unix socket, which is root's alone; with --node by port-forward. Every
    command takes --output json. With the daemon down, status, services, workloads, policies and
    explain read the kernel's maps, which go on serving, and say so.

    \b
    Example:
      kmeshctl status
      kmeshctl explain 10.96.0.10:80 --output json
      kmeshctl nodes
      kmeshctl --node worker-1 services
    """  # noqa: D301 - \b is click's mark for "do not wrap"


@kmeshctl.command()
@run_dir_option
@pins_option
@ui.output_option
@click.pass_context
def status(context: click.Context, run_dir: Path, pins: Path, output: str) -> None:
    """Mode and why, readiness, and what was rejected.

    Exit status 3 when the daemon is down and the kernel's maps alone answered.
    """
    facts, down = ctl_maps.ask_or_read(
        "/status", run_dir=run_dir, pins=pins, read=ctl_maps.read_status
    )
    if down:
        ctl_maps.show(facts, down, output=output)
        context.exit(ctl_maps.DOWN)
    if output == "json":
        ui.print_json(facts)
        return
    for name, value in _status_lines(facts):
        click.echo(f"{name + ':' if name else '':<12} {value}")


def _status_lines(facts: Json) -> Iterable[tuple[str, Any]]:
    yield "ready", "yes" if facts["ready"] else f"no: {facts['not_ready']}"
    yield (
        "mode",
        facts["mode"] + ("" if facts["wanted"] == "auto" else f" (forced: {facts['wanted']})"),
    )
    for reason in facts["reasons"]:
        yield "", f"- {reason}"
    if facts["unverified"]:
        yield "not tried", ", ".join(facts["unverified"])
    for demotion in facts["demotions"]:
        yield "demoted", f"{demotion['path']} failed to start: {demotion['reason']}"
    if changed := _changed(facts.get("previous")):
        yield "changed", changed
    yield from _past_tcp(facts)
    if facts["authorization"] and not facts["authorization"]["enforced"]:
        since = facts["authorization"]["disabled_since"]
        yield "policies", f"NOT ENFORCED since {since}: switched off (kmeshctl authz enable)"
    yield "telemetry", _telemetry(facts["telemetry"])
    yield from http_lines(facts["telemetry"].get("http"))
    yield from gate_lines(facts.get("gate") or {})
    for line in _waypoints(facts["waypoints"] or {}):
        yield "waypoints", line
    if facts.get("node_waypoint"):
        yield from node_waypoint_lines(facts["node_waypoint"])
    if facts["compiled"]:
        yield "compiled", facts["compiled"]
    yield from _sync_lines(facts["sync"], facts["counts"])
    yield (
        "daemon",
        f"process {facts['pid']}, version {facts['version']}, up {facts['uptime_seconds']} s",
    )
    yield "listens", ", ".join(facts["listens"])
    yield "pinned", facts["pins"]


def _changed(previous: Json | None) -> str:
    """What is not as in the run before: kernel and mode."""
    if previous is None or not (previous["kernel_changed"] or previous["mode_changed"]):
        return ""
    return f"the last run was {previous['mode']} on kernel {previous['release']}"


def _past_tcp(facts: Json) -> Iterable[tuple[str, str]]:
    if facts["acceleration"]:
        yield "same node", _acceleration(facts["acceleration"])
    if facts.get("responses"):
        yield "responses", facts["responses"]["told"]


def _acceleration(facts: Json) -> str:
    state = "accelerated" if facts["on"] else "not accelerated"
    if facts["on"]:
        state += f", {ui.count(facts['paired'], 'connection')} so far"
        passed_over = facts["client_blocks"] + facts["server_blocks"]
        if passed_over:
            state += f" (not {passed_over} more, an end of which uses blocking calls)"
    return state + (f": {facts['reason']}" if facts["reason"] else "")


def _waypoints(facts: Json) -> Iterable[str]:
    """What is out of the ordinary; nothing where all is well."""
    for one in facts.get("barred", ()):
        failures = ui.count(one["failures"], "connection")
        yield f"{one['address']}:{one['port']} is avoided: it failed {failures} in a row"
    past = list(facts.get("bypassing", {}).items())
    for name, ports in past[:_NAMED]:
        yield f"{name}: past its waypoint on {', '.join(map(str, ports))}, where servers may speak first"
    if len(past) > _NAMED:
        yield f"and {len(past) - _NAMED} more with such ports (--output json lists all)"
    if facts.get("unintroduced"):
        lost = ui.count(facts["unintroduced"], "connection")
        yield f"{lost} without a header, {facts['refused']} refused: too many at once"


def _telemetry(facts: Json) -> str:
    if facts["reason"]:
        return f"off: {facts['reason']}"
    lost = f", {facts['lost']} lost" if facts["lost"] else ""
    log = "on" if facts["access_log"] else "off"
    blind = f"; not of network namespaces: {facts['namespaces']}" if facts["namespaces"] else ""
    return f"on, {ui.count(facts['events'], 'event')} so far{lost}, access log {log}{blind}"


def _sync_lines(sync: Json, counts: Json) -> Iterable[tuple[str, Any]]:
    yield (
        "source",
        f"{sync['source'] or 'none yet'}, "
        + (
            f"synced {sync['synced']}, last change {sync['updated']}"
            if sync["synced"]
            else "not synced yet"
        ),
    )
    if sync["details"].get("last_error"):
        yield "", f"{sync['details']['address']}: {sync['details']['last_error']}"
    http = sync["details"].get("http")
    if http and http["last_error"]:
        yield "", f"{http['address']} (HTTP): {http['last_error']}"
    if sync["trouble"]:
        yield "trouble", sync["trouble"]
    services = ui.count(counts["services"], "service")
    yield "serves", f"{services}, {ui.count(counts['workloads'], 'workload')}"
    governed = [
        ui.count(counts["managed_cgroups"], "control group"),
        ui.count(counts["managed_namespaces"], "network namespace"),
    ]
    if counts.get("managed_pods"):
        governed.insert(0, ui.count(counts["managed_pods"], "pod"))
    yield "governs", ", ".join(governed)
    for resource, reason in sync["rejected"].items():
        yield "rejected", f"{resource}: {reason}"
    for resource, reason in sync["failed"].items():
        yield "failed", f"{resource}: {reason}"


def _is_shown(found: Any, down: DaemonDownError | None, *, output: str) -> bool:
    """Show what takes no table of the daemon's: what the maps told, or JSON; False for the rest."""
    if down:
        ctl_maps.show(found, down, output=output)
    elif output == "json":
        ui.print_json(found)
    else:
        return False
    return True


@kmeshctl.command()
@run_dir_option
@pins_option
@ui.output_option
def services(run_dir: Path, pins: Path, output: str) -> None:
    """Services with their addresses, ports and endpoints.

    With the daemon down: the addresses and shares in the kernel, which knows no names.
    """
    found, down = ctl_maps.ask_or_read(
        "/services", run_dir=run_dir, pins=pins, read=ctl_maps.read_services
    )
    if _is_shown(found, down, output=output):
        return
    columns = ("NAMESPACE", "NAME", "ADDRESSES", "PORTS", "ENDPOINTS")
    ui.print_table(columns, map(_service_row, found), beneath=("ENDPOINTS",))


def _service_row(service: Json) -> tuple[str, ...]:
    endpoints = [
        _endpoint(endpoint) + ("" if endpoint["healthy"] else " (not ready)")
        for endpoint in service["endpoints"]
    ]
    return (
        service["namespace"],
        service["name"],
        ", ".join(service["addresses"]) or "none (headless)",
        ", ".join(f"{port['port']}/{port['protocol']}" for port in service["ports"]),
        ", ".join(endpoints) or "none",
    )


def _endpoint(endpoint: Json) -> str:
    ports = ",".join(dict.fromkeys(str(port["target_port"]) for port in endpoint["ports"]))
    return ", ".join(ui.host_port(address, ports) for address in endpoint["addresses"])


@kmeshctl.command()
@run_dir_option
@pins_option
@ui.output_option
def workloads(run_dir: Path, pins: Path, output: str) -> None:
    """Workloads, and the services that they serve.

    With the daemon down: the endpoints in the kernel, which knows no names.
    """
    found, down = ctl_maps.ask_or_read(
        "/workloads", run_dir=run_dir, pins=pins, read=ctl_maps.read_workloads
    )
    if _is_shown(found, down, output=output):
        return
    columns = ("NAMESPACE", "NAME", "ADDRESSES", "STATE", "NODE", "ZONE", "SERVES")
    ui.print_table(columns, map(_workload_row, found), beneath=("SERVES",))


def _workload_row(workload: Json) -> tuple[str, ...]:
    return (
        workload["namespace"],
        workload["name"],
        ", ".join(workload["addresses"]),
        "ready" if workload["healthy"] else "not ready",
        workload["node"] or "-",
        workload["zone"] or "-",
        ", ".join(key.partition("/")[2] for key in workload["services"]) or "nothing",
    )


@kmeshctl.command()
@run_dir_option
@pins_option
@ui.output_option
def policies(run_dir: Path, pins: Path, output: str) -> None:
    """Authorization policies: where each is decided, and how often it was.

    The kernel decides on identities, addresses and ports before the application sees a connection.
    Conditions on HTTP are for the gate where they are known, else for the waypoint. HITS of a dry-run policy are what it would have decided.
    With the daemon down: the guarded addresses in the kernel, which goes on deciding.
    """
    found, down = ctl_maps.ask_or_read(
        "/policies", run_dir=run_dir, pins=pins, read=ctl_maps.read_policies
    )
    if _is_shown(found, down, output=output):
        return
    if not found["enforced"]:
        click.echo("NOT ENFORCED in this node's kernel: switched off (kmeshctl authz enable)\n")
    columns = ("NAMESPACE", "NAME", "ACTION", "DECIDED BY", "GUARDS", "HITS", "REMARK")
    rows = map(_policy_row, found["policies"])
    ui.print_table(columns, rows, beneath=("GUARDS", "REMARK"))
    if found["exempt"]:
        click.echo(f"\nno policy refuses this node's own: {', '.join(found['exempt'])}")
    if found["refused_by_default"]:
        refused = ui.count(found["refused_by_default"], "connection")
        click.echo(f"\nno allow policy matched: {refused} refused")


def _policy_row(policy: Json) -> tuple[str, ...]:
    remark = f"FAILED: {policy['failed']}" if policy["failed"] else policy["reason"]
    return (
        policy["namespace"],
        policy["name"],
        policy["action"].lower() + (" (dry run)" if policy["dry_run"] else ""),
        policy["decided"],
        ", ".join(policy["guards"]) or "nothing",
        str(policy["hits"]),
        remark,
    )


@kmeshctl.command()
@run_dir_option
@ui.output_option
def probe(run_dir: Path, output: str) -> None:
    """What the daemon found out about this kernel."""
    report = daemon(run_dir).get("/debug/probe")
    if output == "json":
        ui.print_json(report)
        return
    columns = ("CAPABILITY", "VERDICT", "WHY")
    ui.print_table(columns, map(_finding_row, report["findings"]), beneath=("WHY",))
    click.echo("\nmode: " + report["mode"]["mode"])
    for reason in report["mode"]["reasons"]:
        click.echo(f"  - {reason}")


def _finding_row(finding: Json) -> tuple[str, ...]:
    evidence = finding["evidence"]
    return finding["capability"], finding["verdict"], evidence[-1]["summary"] if evidence else ""


@kmeshctl.command()
@click.option(
    "--accesslog",
    type=click.Choice(_SWITCH),
    help="Write one line a connection to the daemon's standard output, or no longer.",
)
@run_dir_option
@ui.output_option
def monitoring(accesslog: str | None, run_dir: Path, output: str) -> None:
    """Switch the access log; without an option, tell what is followed.

    \b
    Example:
      kmeshctl monitoring --accesslog on
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    if accesslog is not None:
        daemon(run_dir).post("/accesslog", {"enable": _SWITCH[accesslog]})
    facts = daemon(run_dir).get("/status")["telemetry"]
    if output == "json":
        ui.print_json(facts)
        return
    click.echo(f"telemetry: {_telemetry(facts)}")


@kmeshctl.command()
@run_dir_option
@ui.output_option
def version(run_dir: Path, output: str) -> None:
    """The running daemon's version and objects."""
    from runtime.cli.version import show

    show(daemon(run_dir).get("/version"), output)


@kmeshctl.command()
@run_dir_option
def dump(run_dir: Path) -> None:
    """Everything the daemon knows, as one JSON document: for a report, or a comparison.

    Every field of every service, workload and policy in a fixed order, one on a line, with where it
    is from, and what was rejected or failed. It holds no secrets. The same as /debug/config_dump on port 15200.
    """
    from runtime.server.lines import json_lines

    everything = daemon(run_dir).get("/debug/config_dump", seconds=_DUMP_SECONDS)
    click.echo(json_lines(everything), nl=False)


for command in (authz, explain, log_, routes, nodes, pods, waypoint, completion):
    kmeshctl.add_command(command)


def main() -> None:
    ui.main(kmeshctl, name="kmeshctl")


if __name__ == "__main__":
    main()
