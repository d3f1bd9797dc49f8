# SPDX-License-Identifier: Apache-2.0
"""A node to run a real daemon on: a network namespace with backends, and directories of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

VIP = "10.96.0.10"
PATIENCE = 60.0  # seconds, for a machine that is busy with other tests
BACKENDS = {"blue": "10.244.0.11", "green": "10.244.0.12"}

_BACKEND = """
import http.server, sys
name, address = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((address, 8080), Handler)
print("up", flush=True)
server.serve_forever()
"""

# Asks the service n times; prints each answer, or the error, on a line.
CLIENT = """
import http.client, sys
host, count = sys.argv[1], int(sys.argv[2])
for _ in range(count):
    try:
        c = http.client.HTTPConnection(host, 80, timeout=5)
        c.request("GET", "/")
        print(c.getresponse().read().decode())
        c.close()
    except OSError as error:
        print(type(error).__name__)
"""


def service(address: str = VIP) -> str:
    return (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        f"spec: {{clusterIP: {address}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
    )


def endpoints(*names: str) -> str:
    listed = ", ".join(f"{{addresses: [{BACKENDS[name]}]}}" for name in names)
    return (
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\n"
        f"addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{listed}]\n"
    )


def until(condition: Callable[[], Any], complaint: str) -> Any:
    """Wait until a condition is true; gives what it gave."""
    deadline = time.monotonic() + PATIENCE
    while not (got := condition()):
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)
    return got


class Daemon:
    """A `kmesh run` and what it logs."""

    def __init__(
        self,
        node: Node,
        *arguments: str,
        source: str = "",
        prefix: tuple[str, ...] = (),
        **env: str,
    ) -> None:
        self._node = node
        self.log_path = node.path / f"log-{time.monotonic_ns()}"
        argv = [
            *prefix,
            *(sys.executable, "-m", "runtime.cli.main", "run"),
            *("--source", source or f"files:{node.services}", *arguments),
        ]
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                node.inside(argv), stderr=log, env=node.environment | env, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return self._node.http("/debug/ready")[0] == 200

    def wait_ready(self) -> Daemon:
        until(self.ready, f"not ready in time:\n{self.log}")
        return self

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Node:
    """A network namespace in which two backends answer with their names."""

    client = CLIENT
    vip = VIP
    service = staticmethod(service)
    endpoints = staticmethod(endpoints)
    until = staticmethod(until)

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self.services = path / "services"
        self.services.mkdir()
        self.run_dir = path / "run"
        self.pins = Path(f"/sys/fs/bpf/kmesh-test-{os.getpid()}-{path.name}")
        self.environment = {
            **os.environ,
            "KMESH_RUN_DIR": str(self.run_dir),
            "KMESH_PINS": str(self.pins),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        self._namespace = self._start_namespace()
        for name, address in BACKENDS.items():
            self._start_backend(name, address)

    def _start_namespace(self) -> str:
        script = "ip link set lo up && echo up && exec sleep infinity"
        holder = self._spawn(["unshare", "--net", "--", "sh", "-c", script])
        return f"/proc/{holder.pid}/ns/net"

    def _start_backend(self, name: str, address: str) -> None:
        self.check(["ip", "address", "add", f"{address}/32", "dev", "lo"])
        self.start([sys.executable, "-c", _BACKEND, name, address])

    def start(self, argv: list[str]) -> None:
        """Start a process that says "up" when it is, and ends with the test."""
        self._spawn(self.inside(argv))

    def _spawn(self, argv: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def inside(self, argv: list[str]) -> list[str]:
        return ["nsenter", f"--net={self._namespace}", "--", *argv]

    def call(self, argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.inside(argv),
            env=self.environment | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def check(self, argv: list[str]) -> str:
        done = self.call(argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kmesh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call([sys.executable, "-m", "runtime.cli.main", *arguments])

    def kmeshctl(self, *arguments: str) -> str:
        return self.check([sys.executable, "-m", "runtime.cli.ctl", *arguments])

    def ask(self, *question: str) -> Any:
        return json.loads(self.kmeshctl(*question, "--output", "json"))

    def write(self, text: str, name: str = "web.yaml") -> None:
        draft = self.services / f".{name}"
        draft.write_text(text)
        draft.replace(self.services / name)

    def daemon(self, *arguments: str, **more: Any) -> Daemon:
        daemon = Daemon(self, *arguments, **more)
        self._stack.callback(daemon.kill)
        return daemon

    def http(self, path: str, port: int = 15200) -> tuple[int, str]:
        """Status and body over loopback in the namespace; status 0 when nobody listens."""
        script = f"curl -s -m 5 -w '\\n%{{http_code}}' http://127.0.0.1:{port}{path}"
        body, _, status = self.call(["sh", "-c", script]).stdout.rpartition("\n")
        return int(status), body

    def answers(self, count: int = 20, host: str = VIP) -> Counter[str]:
        """What a managed command gets from the service."""
        done = self.kmesh("exec", "--", sys.executable, "-c", CLIENT, host, str(count))
        assert done.returncode == 0, done.stderr
        return Counter(done.stdout.split())

    def clean(self) -> None:
        """What a failed test may have left."""
        self.kmesh("cleanup")
        if self.pins.is_dir():
            shutil.rmtree(self.pins, ignore_errors=True)


@pytest.fixture
def node(tmp_path: Path, objects: Path) -> Iterator[Node]:
    with ExitStack() as stack:
        made = Node(tmp_path, stack)
        stack.callback(made.clean)
        made.write(service() + endpoints("blue", "green"))
        yield made
