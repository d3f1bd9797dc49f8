# SPDX-License-Identifier: Apache-2.0
"""Real Envoys as instances of a waypoint, each a process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tests.dataplane.world import World, wait_for

_numbers = count()
Config = Callable[[list[str], int], dict[str, Any]]


class Envoys:
    """Envoys in a test's namespace, one an address; `close` ends all."""

    def __init__(self, world: World, program: Path, *, scratch: Path, config: Config) -> None:
        self._world = world
        self._program = program
        self._scratch = scratch
        self._config = config
        self._backend = world.agent()("serve_http", "127.0.0.1")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, host: str) -> None:
        """Start one, and wait until it serves."""
        number = next(_numbers)
        config, log = self._scratch / f"envoy-{number}.json", self._scratch / f"log-{number}"
        config.write_text(json.dumps(self._config([host], self._backend)))
        base = str(os.getpid() * 10 % 30000 + number)
        argv = [str(self._program), "-c", str(config), "--concurrency", "1", "--base-id", base]
        with log.open("w") as file:
            self._processes[host] = subprocess.Popen(
                ["nsenter", f"--net={self._world.netns}", *argv], stdout=file, stderr=file
            )
        wait_for(lambda: "all dependencies initialized" in log.read_text(), f"Envoy at {host}")

    def kill(self, host: str) -> None:
        process = self._processes.pop(host)
        process.kill()
        process.wait()

    def close(self) -> None:
        for host in list(self._processes):
            self.kill(host)
