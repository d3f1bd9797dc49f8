# SPDX-License-Identifier: Apache-2.0
"""What a daemon is made of, and what it says of itself when the server asks, from its threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from runtime.cluster.api import Api
from runtime.control.ahead import Ahead
from runtime.control.authorization import Authorization
from runtime.control.dump import dump
from runtime.control.explain import explain
from runtime.control.known import Known
from runtime.control.question import parse_question
from runtime.control.rundir import RunDir
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.kernel.datapath import DataPath
from runtime.kernel.http_tables import HttpTables
from runtime.kernel.reader import open_tables
from runtime.launch.accelerate import Acceleration
from runtime.launch.cluster import ClusterPart
from runtime.launch.config import Config
from runtime.launch.enhanced import HTTP_PATH
from runtime.launch.http import Http
from runtime.launch.lastrun import Change
from runtime.launch.managed import Managed
from runtime.launch.responses import Responses
from runtime.launch.start import Started
from runtime.launch.telemetry import Telemetry
from runtime.launch.verdict import Judged, Probing
from runtime.launch.waypoint import WaypointPart
from runtime.model.mesh import Locality
from runtime.server.http import Server
from runtime.tables.place import Place, Whereabouts
from runtime.version import package_version

Json = Mapping[str, Any]


class Instance:
    """The parts of one `kmesh run`, each None until it is there. Implements what the server asks for.

    Args:
        config: the settings.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._dir = RunDir(config.run_dir)
        self._began = time.monotonic()
        self._phase = "starting"
        self._view = View()
        self._lock = threading.Lock()
        self._servers: list[Server] = []
        self._probing: Probing | None = None
        self._source: Ahead | None = None
        self._judged: Judged | None = None
        self._change: Change | None = None
        self._started: Started[DataPath] | None = None
        self._managed: Managed | None = None
        self._acceleration: Acceleration | None = None
        self._responses: Responses | None = None  # on the enhanced path
        self._authorization: Authorization | None = None
        self._telemetry = Telemetry()
        self._http: Http | None = None  # on the enhanced path
        self._node_waypoint = WaypointPart(
            config.node_waypoint, source=config.source, exempt=config.exempt_node
        )
        self._api: Api | None = None
        self._whereabouts = whereabouts(config)
        self._cluster: ClusterPart | None = None
        self._ready_after: float | None = None
        self._version: Json = {"version": package_version()}

    def version(self) -> Json:
        return self._version

    def not_ready(self) -> str | None:
        unguarded = self._authorization.fault() if self._authorization else None
        if unguarded:
            return unguarded
        if self._ready_after is None or self._managed is None:
            return self._phase
        if self._authorization and self._authorization.is_needed and self._managed.unlocated:
            cookies = ", ".join(map(str, self._managed.unlocated))
            return f"NOT GUARDED: no path is known to network namespace {cookies}"
        if self._view.unguarded:
            return f"NOT GUARDED: {self._view.unguarded}"
        pods = self._cluster.not_ready() if self._cluster else ""
        refused = self._http.fault() if self._http else None
        return self._managed.fault() or refused or pods or None

    def not_alive(self) -> str | None:
        """Why the daemon must be started anew; None while it works, or may still get there."""
        return self._managed.fault() if self._managed else None

    def status(self) -> Json:
        reason = self.not_ready()
        report = self._judged.report if self._judged else None
        return {
            "version": package_version(),
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "ready": reason is None,
            "not_ready": reason,
            "wanted": self._config.mode,
            "mode": self._started.name if self._started else "none",
            "kernel_mode": report.mode.kernel_mode if report else None,
            "reasons": list(report.mode.reasons) if report else [],
            "unverified": list(report.mode.unverified) if report else [],
            "demotions": self._demotions(),
            "previous": self._change.to_json() if self._change else None,
            "probe_cached": bool(report and report.cached),
            "adopted": bool(self._started and self._started.path.was_serving),
            "acceleration": self._acceleration.status() if self._acceleration else None,
            "responses": self._responses.status() if self._responses else None,
            "telemetry": self._telemetry.status(),
            "authorization": self._authorization.summary() if self._authorization else None,
            "waypoints": self._waypoints(),
            "node_waypoint": self._node_waypoint.status(),
            "gate": self._http.status() if self._http else None,
            "compiled": self._judged.compiled if self._judged else "",
            "sync": self._view.summary(),
            "counts": self._counts(),
            "capabilities": {f.capability: str(f.verdict) for f in report.findings}
            if report
            else {},
            "listens": [server.where for server in self._servers],
            "pins": str(self._config.pins),
            "place": _place(self._whereabouts.place),
            "managed": self._managed.describe() if self._managed else [],
            "node": self._config.node,
            "kernel": report.facts.release if report else None,
            "enrolment": self._cluster.status() if self._cluster else None,
        }

    def _waypoints(self) -> Json | None:
        """How connections to waypoints fare in the kernel."""
        if self._started is None:
            return None
        facts = asdict(self._started.path.waypoints())
        return {**facts, "bypassing": self._view.bypassing()}

    def _demotions(self) -> list[Json]:
        demotions = self._started.demotions if self._started else ()
        return [{"path": each.path, "reason": each.reason} for each in demotions]

    def _counts(self) -> Json:
        return {
            "services": len(self._view.services),
            "workloads": len(self._view.workloads),
            "policies": len(self._view.policies),
            "rejected_resources": len(self._view.rejected),
            "failed_resources": len(self._view.failed),
            "managed_cgroups": len(self._managed.cgroups) if self._managed else 0,
            "managed_namespaces": self._managed.netns if self._managed else 0,
            "managed_pods": len(self._managed.pods) if self._managed else 0,
            "updates": self._view.updates,
            "demotions": len(self._demotions()),
            "start_seconds": self._ready_after,
        }

    def probe(self) -> Json:
        if self._judged is None:
            raise KmeshError("the kernel is being probed")
        return {**self._judged.report.to_json(), "compiled": self._judged.compiled}

    def services(self) -> list[Json]:
        return self._view.describe_services()

    def workloads(self) -> list[Json]:
        return self._view.describe_workloads()

    def policies(self) -> Json:
        authorization = self._authorizing()
        with self._lock:
            return authorization.describe()

    def authz(self) -> Json:
        return self._authorizing().summary()

    def switch_authz(self, *, on: bool) -> None:
        authorization = self._authorizing()
        with self._lock:
            authorization.switch(on=on)

    def _authorizing(self) -> Authorization:
        if self._authorization is None:
            raise KmeshError(f"the data path does not serve: {self._phase}")
        return self._authorization

    def pods(self) -> list[Json]:
        if self._cluster is None:
            raise KmeshError("this daemon enrols no pods", hint="start it with --cluster")
        return self._cluster.pods()

    def access_log(self) -> bool:
        return self._telemetry.access_log.on

    def switch_access_log(self, *, on: bool) -> None:
        self._telemetry.switch_access_log(on=on)

    def dump(self) -> Json:
        return {
            "schema_version": 1,
            "version": self.version(),
            "status": self.status(),
            **dump(self._view),
            "routes": self._routes(None)["routes"],
        }

    def routes(self, service: str | None) -> Json:
        return self._routes(service)

    def _routes(self, service: str | None) -> Json:
        from runtime.control.routes import describe_routes

        seen = self._telemetry.http
        return describe_routes(
            self._view,
            why_not=self._why_not(),
            service=service,
            hits=seen.hits(),
            standings=seen.standings(),
            nameless=nameless(self._config),
        )

    def authorize(self, asked: Json) -> Json:
        """Whether a request is let through, and by whose policy."""
        from runtime.launch.http_authorize import authorize_http

        return authorize_http(
            asked, view=self._view, why_not=self._why_not(), nameless=nameless(self._config)
        )

    def _why_not(self) -> str:
        """Why no HTTP is routed here; "" where it is."""
        serves = self._started.name if self._started else ""
        return "" if serves == HTTP_PATH else f"the enhanced path does not run: {self._why()}"

    def _why(self) -> str:
        """Why the enhanced path does not run, in a few words."""
        if self._started is None:
            return self._phase
        if self._config.mode == self._started.name:
            return f"--mode {self._config.mode} was asked for"
        for demotion in self._started.demotions:
            if demotion.path == HTTP_PATH:
                return demotion.reason
        refused = self._judged.report.mode.refused if self._judged else {}
        return next(iter(refused.get(HTTP_PATH, ())), "`kmeshctl status` says why")

    def explain(self, to: str, protocol: str | None) -> Json:
        question = parse_question(to, protocol=protocol)
        if self._started is None:
            raise KmeshError(f"the data path does not serve: {self._phase}")
        acceleration = self._acceleration.status() if self._acceleration else None
        known = Known(self._view, place=self._whereabouts.place, acceleration=acceleration)
        with open_tables(self._config.pins) as tables:
            return explain(question, tables, known=known)

    def explain_request(self, asked: Json) -> Json:
        """Which route, cluster and endpoint a request meets; with `send`, it is sent too."""
        from runtime.launch.http_explain import explain_http

        if self._started is None or self._started.name != HTTP_PATH:
            raise KmeshError(f"no HTTP is routed on this node: {self._why()}")
        tables = HttpTables(self._started.path.maps)
        return explain_http(
            asked, tables, view=self._view, seen=self._telemetry.http, managed=self._managed
        )

    def enroll(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None:
        self._enrolment().enroll(cgroup, netns=netns, holder=holder)
        self._follow()

    def _follow(self) -> None:
        """Have policies enforced, and the gate listen, in the namespaces that managed processes are in now."""
        if self._authorization:
            with self._lock:
                self._authorization.look()
        if self._http:
            self._http.follow()

    def release(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None:
        self._enrolment().release(cgroup, netns=netns, holder=holder)

    def _enrolment(self) -> Managed:
        if self._managed is None:
            raise KmeshError(f"the data path does not serve: {self._phase}")
        return self._managed


def whereabouts(config: Config, *, cluster: str = "", network: str | None = None) -> Whereabouts:
    """This node's place as far as it is told, by its settings and by its source."""
    region, zone, subzone, *_ = [*config.locality.split("/"), "", "", ""]
    locality = Locality(region, zone, subzone)
    return Whereabouts(
        Place(
            node=config.node,
            locality=locality,
            cluster=cluster,
            network=network,
            waypoint_ports=config.waypoint_ports,
        )
    )


def nameless(config: Config) -> str:
    """Why it is not known who the workloads of this node are; "" where it is (runtime/tables/identities.py)."""
    if config.source == "kubernetes":
        return "the source kubernetes does not tell who workloads are"
    if config.on_demand:
        return "with --on-demand this node's own workloads are not known"
    return "" if config.node else "this node's name is not known (--node)"


def _place(place: Place) -> Json:
    return {
        "node": place.node,
        "cluster": place.cluster,
        "network": place.network,
        "locality": asdict(place.locality),
    }
