# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces that stand for pods on two nodes, joined by a veth pair and nothing else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ci.bench.proxy import http_proxy
from ci.demo.stage import KMESH, Stage

_CLIENT = "10.244.1.1"
_SIDECAR = 15001
_PREFIX = 16  # both ends, and nothing but them, are in 10.244.0.0/16


class Pods:
    """A client's namespace, and one with a server for each name. Both go with the stage."""

    def __init__(self, stage: Stage, servers: dict[str, str], *, port: int) -> None:
        self._stage = stage
        self._server, self._port = next(iter(servers.values())), port
        self._names = [f"kmesh-demo-{os.getpid()}-{end}" for end in ("client", "server")]
        for name in self._names:
            stage.run(["ip", "netns", "add", name])
            stage.at_end(["ip", "netns", "del", name])
        self._join([_CLIENT], list(servers.values()))
        argv = [f"{name}={address}:{port}" for name, address in servers.items()]
        stage.start_helper(
            "the servers",
            self._inside(1, [sys.executable, "-m", "ci.demo.server", *argv]),
            says="up",
            log="servers.log",
        )

    def start_managed(self, name: str, port: int) -> None:
        """One more server at the first one's address, whose namespace is managed from now on."""
        enter = [str(KMESH), "exec", "--netns", f"/run/netns/{self._names[1]}", "--"]
        place = f"{name}={self._server}:{port}"
        argv = [*enter, sys.executable, "-m", "ci.demo.server", place]
        self._stage.start_helper(f"the server {name}", argv, says="up", log=f"{name}.log")

    def _join(self, *ends: Sequence[str]) -> None:
        client, server = self._names
        pair = ["name", "eth0", "netns", server]
        self._ip("link", "add", "eth0", "netns", client, "type", "veth", "peer", *pair)
        for name, addresses in zip(self._names, ends, strict=True):
            for address in addresses:
                self._ip("-n", name, "address", "add", f"{address}/{_PREFIX}", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._ip("-n", name, "link", "set", device, "up")

    def _ip(self, *arguments: str) -> None:
        self._stage.run(["ip", *arguments])

    def _inside(self, end: int, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self._names[end]}", "--", *argv]

    def start_sidecars(self, envoy: Path) -> dict[str, str]:
        """An Envoy beside the client and one beside the first server; where the client asks them."""
        near, far = (_CLIENT, _SIDECAR), (self._server, _SIDECAR)
        logs = []
        for end, listens, target in ((1, far, (self._server, self._port)), (0, near, far)):
            config = self._stage.directory / f"envoy-{end}.json"
            config.write_text(json.dumps(http_proxy(listens, target)))
            argv = [str(envoy), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"]
            logs.append(self._stage.launch(self._inside(end, argv), log=f"envoy-{end}.log"))
        for log in logs:
            self._stage.wait_for(
                lambda log=log: "starting main dispatch loop" in log.read_text(),
                "Envoy did not start",
            )
        return {"two_envoys": f"{_CLIENT}:{_SIDECAR}"}

    @property
    def client(self) -> Path:
        """The client's namespace."""
        return Path("/run/netns") / self._names[0]
