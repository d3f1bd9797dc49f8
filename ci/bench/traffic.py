# SPDX-License-Identifier: Apache-2.0
"""What a request costs: direct, through a service of the compat path, and through one Envoy hop.

One nginx answers all three. New connections: one client, a connection for every request. Keep-alive:
wrk with 16 connections. The daemon runs as it does by default, telemetry included.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ci.bench.measure import Result, median_row
from ci.bench.stage import BIN, CHECKOUT, Stage

_POD, _VIP, _ENVOY = "10.244.0.11", "10.96.0.10", "10.244.0.20"
_WAYS = {"direct": (_POD, 8080), "service": (_VIP, 80), "envoy": (_ENVOY, 15001)}
_SECONDS = 2
_PATIENCE = 30.0

_NGINX = """
daemon off; worker_processes 1; pid {path}/nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;
  uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;
  server {{ listen {pod}:8080 backlog=4096; location / {{ return 200 "ok"; }} }}
}}
"""

_SERVICE = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: {_VIP}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{{addresses: [{_POD}]}}]
"""


def _envoy() -> dict[str, object]:
    """One TCP proxy in front of the pod."""

    def at(host: str, port: int) -> dict[str, object]:
        return {"socket_address": {"address": host, "port_value": port}}

    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": kind, "stat_prefix": "bench", "cluster": "pod"},
    }
    endpoint = {"endpoint": {"address": at(_POD, 8080)}}
    cluster = {
        "name": "pod",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "pod", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"address": at(_ENVOY, 15001), "filter_chains": [{"filters": [proxy]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


class _Traffic:
    """The three ways on one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._env = {
            "KMESH_RUN_DIR": str(stage.path / "run"),
            "KMESH_PINS": str(stage.pins),
        }
        self.connect = stage.path / "connect"
        source = CHECKOUT / "ci" / "bench" / "connect.c"
        subprocess.run(["clang", "-O2", "-o", self.connect, source], check=True)
        for address in (_POD, _ENVOY):
            stage.add_address(address)
        self._start_servers()
        self._start_daemon()
        for way in _WAYS:
            self._await(way)

    def _start_servers(self) -> None:
        path = self._stage.path
        (path / "nginx.conf").write_text(_NGINX.format(path=path, pod=_POD))
        (path / "envoy.json").write_text(json.dumps(_envoy()))
        self._stage.start(["nginx", "-p", path, "-c", path / "nginx.conf"])
        envoy = [str(BIN / "envoy"), "-c", str(path / "envoy.json"), "--concurrency", "1"]
        self._stage.start([*envoy, "--use-dynamic-base-id", "-l", "off"])

    def _start_daemon(self) -> None:
        services = self._stage.path / "services"
        services.mkdir()
        (services / "web.yaml").write_text(_SERVICE)
        argv = [sys.executable, "-m", "runtime.cli.main", "run", "--source", f"files:{services}"]
        log = (self._stage.path / "daemon.log").open("w")
        self._stage.stack.callback(log.close)
        self._stage.start(argv, env=self._env, stderr=log)

    def _await(self, way: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.run(way, [self.connect, *map(str, _WAYS[way]), "0.01"])
            except subprocess.CalledProcessError as error:
                if time.monotonic() > deadline:
                    log = (self._stage.path / "daemon.log").read_text()
                    raise RuntimeError(f"{way}: {error.stderr}\n{log}") from error
                time.sleep(0.2)
            else:
                return

    def run(self, way: str, argv: Sequence[str | Path]) -> str:
        """Run a client, managed if it goes to the service; gives what it prints."""
        managed = [sys.executable, "-m", "runtime.cli.main", "exec", "--"]
        argv = [*managed, *argv] if way == "service" else list(argv)
        done = subprocess.run(
            self._stage.inside(argv),
            env={**os.environ, **self._env},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def _new_connections(traffic: _Traffic, way: str) -> float:
    return float(traffic.run(way, [traffic.connect, *map(str, _WAYS[way]), str(_SECONDS)]))


def _keep_alive(traffic: _Traffic, way: str) -> float:
    host, port = _WAYS[way]
    url = f"http://{host}:{port}/"
    told = traffic.run(way, ["wrk", "-t1", "-c16", f"-d{_SECONDS}", url])
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    if found is None or "Non-2xx" in told:
        raise RuntimeError(f"wrk to {url}: {told}")
    return float(found[1])


def _compare(
    traffic: _Traffic, what: str, once: Callable[[_Traffic, str], float], *, rounds: int
) -> Mapping[str, object]:
    """The three take turns; the ratio is the median of the ratios within each round."""
    runs = [{way: once(traffic, way) for way in _WAYS} for _ in range(rounds)]
    for run in runs:
        run |= {f"{way}_ratio": run[way] / run["direct"] for way in ("service", "envoy")}
    return {"what": what, **median_row(runs)}


def measure(*, rounds: int) -> Result:
    """Compare the ways; see `ci.bench`."""
    with Stage() as stage:
        traffic = _Traffic(stage)
        rows = [
            _compare(traffic, "new connections/s", _new_connections, rounds=rounds),
            _compare(traffic, "keep-alive requests/s", _keep_alive, rounds=rounds),
        ]
    return Result("traffic", "direct, through a service (compat), through one Envoy hop", rows)
