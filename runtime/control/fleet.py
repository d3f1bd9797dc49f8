# SPDX-License-Identifier: Apache-2.0
"""The daemons of a cluster, seen from a user's machine: which nodes, which pods, and connections to them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from runtime.cluster.api import NODES, PODS, Api
from runtime.errors import KmeshError
from runtime.probe.mode import PATHS
from runtime.server.client import Client

STATUS_PORT = 15200
_SELECTOR = "app=kmesh"
_AT_ONCE = 8

Json = Mapping[str, Any]


class ReachesPods(Api, Protocol):
    """An API server through which pods' ports can be reached."""

    def port_forward(self, namespace: str, pod: str, port: int) -> socket.socket: ...
    def run_in(self, namespace: str, pod: str, argv: Sequence[str]) -> str: ...


class Fleet:
    """Every daemon of a cluster.

    Args:
        api: the API server, with the user's rights.
    """

    def __init__(self, api: ReachesPods) -> None:
        self._api = api

    def daemons(self) -> dict[str, Json]:
        """The daemon's pod of each node that has one."""
        pods = self._api.get(PODS, labelSelector=_SELECTOR)["items"]
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return {pod["spec"]["nodeName"]: pod for pod in alive if pod["spec"].get("nodeName")}

    def client(self, node: str) -> Client:
        """Requests to the daemon of a node.

        Raises:
            KmeshError: there is none.
        """
        return self._client(self._daemon(node))

    def run(self, node: str, argv: Sequence[str]) -> str:
        """Run a command in the daemon's pod on a node; gives what it prints.

        Raises:
            KmeshError: there is none, or the command fails.
        """
        metadata = self._daemon(node)["metadata"]
        return self._api.run_in(metadata["namespace"], metadata["name"], argv)

    def _daemon(self, node: str) -> Json:
        found = self.daemons()
        if node not in found:
            there = ", ".join(sorted(found)) or "none"
            raise KmeshError(f"no daemon of Kmesh on node {node!r}", hint=f"there are on: {there}")
        return found[node]

    def _client(self, pod: Json) -> Client:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        return Client(
            Path(),
            connect=lambda: self._api.port_forward(namespace, name, STATUS_PORT),
            where=f"pod {namespace}/{name}",
        )

    def nodes(self) -> list[Json]:
        """Every node: its kernel, what runs there and why not more; also where no daemon answers."""
        nodes = sorted(
            self._api.get(NODES)["items"], key=lambda node: str(node["metadata"]["name"])
        )
        daemons = self.daemons()
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            return list(pool.map(lambda node: self._describe(node, daemons), nodes))

    def _describe(self, node: Json, daemons: Mapping[str, Json]) -> Json:
        name = node["metadata"]["name"]
        told: dict[str, Any] = {
            "node": name,
            "kernel": node["status"]["nodeInfo"]["kernelVersion"],
            "mode": (node["metadata"].get("labels") or {}).get("kmesh.net/mode"),
            "version": None,
            "ready": False,
            "synced": None,
            "services": None,
            "pods": None,
            "why": [],
        }
        if name not in daemons:
            return {**told, "mode": None, "why": ["no daemon runs there"]}
        try:
            status = self._client(daemons[name]).get("/status")
        except KmeshError as error:
            return {**told, "why": [str(error)]}
        return told | dict(_of_status(status))


def _of_status(status: Json) -> Iterator[tuple[str, Any]]:
    enrolment = status.get("enrolment") or {}
    yield "mode", status["mode"]
    yield "version", status["version"]
    yield "ready", status["ready"]
    yield "synced", status["sync"]["synced"]
    yield "services", status["counts"]["services"]
    yield "pods", enrolment.get("governed", status["counts"]["managed_pods"])
    failed = [f"{each['path']} failed to start: {each['reason']}" for each in status["demotions"]]
    not_ready = [f"not ready: {status['not_ready']}"] if status["not_ready"] else []
    # Where the user's word alone keeps a node from more, no reason of the prober's would say so.
    asked = status["wanted"] == status["mode"] != PATHS[0] and not status["reasons"]
    chosen = [f"mode {status['wanted']} was asked for"] if asked else []
    yield "why", [*not_ready, *failed, *status["reasons"], *chosen]
