# SPDX-License-Identifier: Apache-2.0
"""A real Envoy as a waypoint of the gate's, at addresses or at a Unix socket, and a fake that remembers bytes."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from runtime.kernel.gate import Gate
from runtime.model.http import RouteTable
from runtime.tables.http_ports import Target, cluster_number
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.world import VIP4

WAYPOINT_PORT = 15019
_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def _routes() -> list[dict[str, Any]]:
    return [
        {"match": {"connect_matcher": {}}, "route": {"cluster": "backend", "upgrade_configs": [
            {"upgrade_type": "CONNECT", "connect_config": {}}]}},
        {"match": {"prefix": "/far/rewritten/"},
         "route": {"cluster": "backend", "prefix_rewrite": "/new/"}},
        {"match": {"prefix": "/far/late"}, "route": {
            "cluster": "backend", "timeout": "0.3s", "prefix_rewrite": "/far/slow/5"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}},
    ]  # fmt: skip


def _chain() -> dict[str, Any]:
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "waypoint",
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old"},
        "upgrade_configs": [{"upgrade_type": "echo"}],
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes()}],
            "response_headers_to_add": [
                {"header": {"key": "x-source", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"}},
            ]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": f"{_FILTERS}.http.router.v3.Router"}}],
    }  # fmt: skip
    return {
        "filter_chain_match": {
            "destination_port": PORT,
            "prefix_ranges": [{"address_prefix": VIP4, "prefix_len": 32}],
        },
        "filters": [{"name": "http", "typed_config": manager}],
    }


def _address(where: str) -> dict[str, Any]:
    if where.startswith("/"):
        return {"pipe": {"path": where}}
    return {"socket_address": {"address": where, "port_value": WAYPOINT_PORT}}


def envoy_config(listen: list[str], backend: int) -> dict[str, Any]:
    """Listens at addresses, or at paths; who was going elsewhere finds no filter chain."""
    proxy = {"@type": f"{_FILTERS}.listener.proxy_protocol.v3.ProxyProtocol"}
    endpoint = {"socket_address": {"address": "127.0.0.1", "port_value": backend}}
    return {"static_resources": {
        "listeners": [{
            "name": f"at {where}",
            "address": _address(where),
            "listener_filters": [{"name": "proxy", "typed_config": proxy}],
            "filter_chains": [_chain()],
        } for where in listen],
        "clusters": [{"name": "backend", "type": "STATIC", "load_assignment": {
            "cluster_name": "backend", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": endpoint}}]}]}}],
    }}  # fmt: skip


def use_node(stage: Stage, path: Path | str) -> None:
    """Have the gate know the node's waypoint; an empty path takes it away."""
    with Gate(stage.place.socket) as gate:
        gate.set_waypoint(path)


def use_instances(stage: Stage, routes: RouteTable, *hosts: str) -> None:
    """Have the port be routed by these, with a waypoint of its own that has these instances."""
    stage.ports.set_cluster("waypoint", [Target(host, WAYPOINT_PORT) for host in hosts])
    written = stage.ports.write(routes)
    stage.ports.point(VIP4, PORT, written, waypoint=cluster_number("waypoint"))


class Recorder:
    """A Unix socket that remembers what comes, a connection at a time; `answer` is sent to each."""

    def __init__(self, path: Path, *, answer: bytes = b"", ends: bool = False) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._answer, self._ends = answer, ends
        self.peers: list[socket.socket] = []
        self.bytes: list[bytearray] = []
        self.ended: list[str] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self.peers):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(30)
        for one in (self._listener, *self.peers):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.peers.append(peer)
            self.bytes.append(bytearray())
            self.ended.append("")
            number = len(self.peers) - 1
            reader = threading.Thread(target=self._read, args=(peer, number), daemon=True)
            self._threads.append(reader)
            reader.start()

    def _read(self, peer: socket.socket, number: int) -> None:
        try:
            peer.sendall(self._answer)
            if self._ends:
                peer.shutdown(socket.SHUT_WR)
            while more := peer.recv(65536):
                self.bytes[number] += more
            self.ended[number] = "end"
            peer.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.ended[number] = repr(error)
