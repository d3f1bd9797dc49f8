# SPDX-License-Identifier: Apache-2.0
"""What can be asked of the daemon, and at which path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from runtime import log
from runtime.errors import KmeshError
from runtime.server.http import Reply, Request, Route
from runtime.server.lines import json_lines

Json = Mapping[str, Any]
_DUMPED = (
    "services",
    "workloads",
    "policies",
    "listeners",
    "route_tables",
    "clusters",
    "endpoints",
    "routes",
)


class Daemon(Protocol):
    """The daemon as the server knows it. Every method may be called from any thread."""

    def version(self) -> Json: ...
    def not_ready(self) -> str | None:
        """Why it is not ready, or None when it is."""

    def status(self) -> Json: ...
    def probe(self) -> Json: ...
    def services(self) -> list[Json]: ...
    def workloads(self) -> list[Json]: ...
    def policies(self) -> Json: ...
    def pods(self) -> list[Json]:
        """The node's pods, governed or not, and why."""

    def not_alive(self) -> str | None:
        """Why it must be started anew, or None when it works or may get there by itself."""

    def dump(self) -> Json:
        """Everything that the source said, with where it is from, and the daemon's own state."""

    def explain(self, to: str, protocol: str | None) -> Json:
        """What happens to a connection to ADDRESS[:PORT]; raises KmeshError when it is none."""

    def explain_request(self, asked: Json) -> Json:
        """Which route, cluster and endpoint a request meets; with "send", it is sent too."""

    def routes(self, service: str | None) -> Json:
        """Where each route runs, and why; those of one service, or of all."""

    def access_log(self) -> bool: ...
    def switch_access_log(self, *, on: bool) -> None: ...
    def authz(self) -> Json:
        """Whether policies are enforced in the kernel."""

    def authorize(self, asked: Json) -> Json:
        """Whether a request is let through, and by whose policy."""

    def switch_authz(self, *, on: bool) -> None: ...
    def enroll(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None: ...
    def release(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None: ...


def routes(daemon: Daemon, *, metrics: Callable[[], bytes]) -> dict[tuple[str, str], Route]:
    """The paths that tell something; the access log can be switched, as upstream's users know it."""
    telling: dict[str, Callable[[], Any]] = {
        "/version": daemon.version,
        "/status": daemon.status,
        "/services": daemon.services,
        "/workloads": daemon.workloads,
        "/policies": daemon.policies,
        "/pods": daemon.pods,
        "/authz": daemon.authz,
        "/debug/probe": daemon.probe,
        "/debug/loggers": log.levels,
    }
    table: dict[tuple[str, str], Route] = {
        ("GET", path): partial(_tell, function) for path, function in telling.items()
    }
    for kind in ("", *_DUMPED):
        path = f"/debug/config_dump/{kind}".rstrip("/")
        table["GET", path] = partial(_dump, daemon, kind)
    table["GET", "/accesslog"] = lambda _request: _access_log(daemon)
    table["POST", "/accesslog"] = partial(_switch_access_log, daemon)
    table["GET", "/routes"] = lambda request: Reply(daemon.routes(request.query.get("service")))
    table["GET", "/explain"] = partial(_explain, daemon)
    table["GET", "/debug/ready"] = lambda _request: _verdict(daemon.not_ready(), "not ready")
    table["GET", "/debug/alive"] = lambda _request: _verdict(daemon.not_alive(), "not alive")
    table["GET", "/status/metric"] = lambda _request: metrics_reply(metrics)
    listing = "".join(f"{path}\n" for path in sorted({path for _, path in table}))
    table["GET", "/"] = lambda _request: Reply(listing)
    return table


def control_routes(daemon: Daemon) -> dict[tuple[str, str], Route]:
    """The paths that change something: for the Unix socket only."""
    return {
        ("POST", "/enroll"): partial(_on_workload, daemon.enroll),
        ("POST", "/release"): partial(_on_workload, daemon.release),
        ("POST", "/explain"): lambda request: Reply(daemon.explain_request(request.body)),
        ("POST", "/debug/loggers"): _set_level,
        ("POST", "/authz"): partial(_switch_authz, daemon),
        ("POST", "/authz/check"): lambda request: Reply(daemon.authorize(request.body)),
    }


def metrics_reply(metrics: Callable[[], bytes]) -> Reply:
    return Reply(metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _tell(function: Callable[[], Any], _request: Request) -> Reply:
    return Reply(function())


def _dump(daemon: Daemon, kind: str, _request: Request) -> Reply:
    whole = daemon.dump()
    text = json_lines(whole[kind] if kind else whole)
    return Reply(text.encode(errors="replace"), content_type="application/json")


def _explain(daemon: Daemon, request: Request) -> Reply:
    if "to" not in request.query:
        raise KmeshError("say where to: /explain?to=ADDRESS[:PORT]&protocol=tcp")
    return Reply(daemon.explain(request.query["to"], request.query.get("protocol")))


def _verdict(reason: str | None, words: str) -> Reply:
    return Reply("OK\n") if reason is None else Reply(f"{words}: {reason}\n", 503)


def _access_log(daemon: Daemon) -> Reply:
    return Reply({"enabled": daemon.access_log()})


def _switch_access_log(daemon: Daemon, request: Request) -> Reply:
    """POST /accesslog?enable=true, or with a body {"enable": true}."""
    daemon.switch_access_log(on=_is_enabled(request))
    return _access_log(daemon)


def _switch_authz(daemon: Daemon, request: Request) -> Reply:
    """POST /authz?enable=false, or with a body {"enable": false}."""
    daemon.switch_authz(on=_is_enabled(request))
    return Reply(daemon.authz())


def _is_enabled(request: Request) -> bool:
    said = str(request.body.get("enable", request.query.get("enable", ""))).lower()
    if said not in ("true", "false"):
        raise KmeshError("say enable=true or enable=false")
    return said == "true"


def _on_workload(action: Callable[..., None], request: Request) -> Reply:
    """{"cgroup": DIRECTORY}, or {"netns": PATH or COOKIE}, there with the "holder" if any."""
    body = request.body
    cgroup, netns, holder = body.get("cgroup"), body.get("netns"), body.get("holder", 0)
    if isinstance(cgroup, str) and cgroup.startswith("/") and netns is None:
        action(cgroup)
        return Reply({"cgroup": cgroup})
    named = isinstance(netns, int | str) and re.fullmatch(r"/.+|[1-9]\d{0,19}", str(netns))
    if named and isinstance(holder, int) and holder >= 0 and cgroup is None:
        action(netns=str(netns), holder=holder)
        return Reply({"netns": netns})
    raise KmeshError(
        'the body must name a cgroup, {"cgroup": "/sys/fs/cgroup/…"}, '
        'or a network namespace, {"netns": "/proc/PID/ns/net"} or {"netns": COOKIE}'
    )


def _set_level(request: Request) -> Reply:
    try:
        log.set_level(str(request.body.get("name")), str(request.body.get("level")))
    except ValueError as error:
        raise KmeshError(str(error)) from None
    return Reply(log.levels())
