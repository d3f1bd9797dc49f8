# SPDX-License-Identifier: Apache-2.0
"""The HTTP server and its client: what is answered where, and what is refused."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import KmeshError
from runtime.server import api
from runtime.server.client import Client, DaemonDownError, DaemonError
from runtime.server.http import Reply, Server, parse_address, serve_tcp, serve_unix
from runtime.server.metrics import renderer

Json = Mapping[str, Any]


class FakeDaemon:
    """Stands in for the daemon: the server knows it by this protocol only."""

    reason: str | None = "probing the kernel"

    def __init__(self) -> None:
        self.enrolled: list[str] = []
        self.access_log_on = False
        self.enforced = True

    def access_log(self) -> bool:
        return self.access_log_on

    def switch_access_log(self, *, on: bool) -> None:
        self.access_log_on = on

    def authz(self) -> Json:
        return {"enforced": self.enforced}

    def switch_authz(self, *, on: bool) -> None:
        self.enforced = on

    def version(self) -> Json:
        return {"version": "1"}

    def not_ready(self) -> str | None:
        return self.reason

    def not_alive(self) -> str | None:
        return None

    def pods(self) -> list[Json]:
        return []

    def status(self) -> Json:
        return {
            "version": "1",
            "mode": "compat",
            "ready": self.reason is None,
            "authorization": {"enforced": self.enforced},
            "capabilities": {"connect.ipv4": "present"},
            "counts": {"services": 3, "start_seconds": None, "updates": 4, "demotions": 0},
        }

    def probe(self) -> Json:
        raise KmeshError("the kernel is being probed", hint="wait")

    def services(self) -> list[Json]:
        return [{"name": "web"}]

    def policies(self) -> Json:
        return {"policies": [], "refused_by_default": 0}

    def dump(self) -> Json:
        return {"services": [{"key": "default/web"}], "workloads": [], "policies": []}

    def explain(self, to: str, protocol: str | None) -> Json:
        return {"to": to, "protocol": protocol}

    def routes(self, service: str | None) -> Json:
        return {"service": service}

    def authorize(self, asked: Json) -> Json:
        return {"asked": asked}

    def explain_request(self, asked: Json) -> Json:
        return asked

    def workloads(self) -> list[Json]:
        raise RuntimeError("a fault")

    def enroll(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None:
        self.enrolled.append(cgroup or f"{netns} for {holder}")

    def release(self, cgroup: str = "", *, netns: str = "", holder: int = 0) -> None:
        self.enrolled.remove(cgroup or f"{netns} for {holder}")


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@contextmanager
def closing(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def port(daemon: FakeDaemon) -> Iterator[int]:
    routes = api.routes(daemon, metrics=renderer(daemon.status))
    with closing(serve_tcp("127.0.0.1:0", routes)) as server:
        yield int(server.where.rpartition(":")[2])


@pytest.fixture
def client(daemon: FakeDaemon, tmp_path: Path) -> Iterator[Client]:
    path = tmp_path / "s.sock"
    routes = api.routes(daemon, metrics=renderer(daemon.status)) | api.control_routes(daemon)
    with closing(serve_unix(path, routes)):
        yield Client(path)


def ask(port: int, path: str, method: str = "GET", body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_ready_tells_the_reason_until_it_is_ready(port: int, daemon: FakeDaemon) -> None:
    assert ask(port, "/debug/ready") == (503, "not ready: probing the kernel\n")
    daemon.reason = None
    assert ask(port, "/debug/ready") == (200, "OK\n")


def test_paths_answer_json_and_the_root_lists_them(port: int) -> None:
    status, text = ask(port, "/version")
    assert (status, json.loads(text)) == (200, {"version": "1"})
    assert "/debug/ready\n" in ask(port, "/")[1]
    assert ask(port, "/debug/config_dump/services/?x=1")[0] == 200


def test_unknown_paths_and_methods_say_so(port: int) -> None:
    assert ask(port, "/nothing")[0] == 404
    assert ask(port, "/version", "POST", "{}")[0] == 405
    assert ask(port, "/version", "DELETE")[0] == 501


def test_a_question_is_passed_on(port: int) -> None:
    status, body = ask(port, "/explain?to=%5Bfd00::1%5D:80&protocol=udp")
    assert (status, json.loads(body)) == (200, {"to": "[fd00::1]:80", "protocol": "udp"})
    assert json.loads(ask(port, "/explain?to=10.0.0.1")[1])["protocol"] is None
    status, body = ask(port, "/explain")
    assert (status, "say where to" in body) == (409, True)


def test_the_loopback_port_changes_nothing(port: int, daemon: FakeDaemon) -> None:
    assert ask(port, "/enroll", "POST", '{"cgroup": "/x"}')[0] == 404
    assert daemon.enrolled == []


def test_a_fault_costs_one_request(port: int) -> None:
    status, text = ask(port, "/workloads")
    assert (status, json.loads(text)) == (500, {"error": "RuntimeError: a fault"})
    assert ask(port, "/version")[0] == 200


@pytest.mark.parametrize("body", ["{", "[]", "x" * 70000])
def test_a_bad_body_is_the_clients_fault(port: int, body: Any) -> None:
    assert ask(port, "/version", "POST", body)[0] == 400


def test_garbage_does_not_end_the_server(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"\x00\xff\r\n\r\n")
        raw.recv(1000)
    assert ask(port, "/version")[0] == 200


def test_metrics_have_the_prefix_and_the_numbers(port: int) -> None:
    status, text = ask(port, "/status/metric")
    assert status == 200
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.startswith("kmesh_") for line in lines)
    for wanted in (
        "kmesh_services 3.0",
        "kmesh_updates_total 4.0",
        "kmesh_ready 0.0",
        'kmesh_mode_info{mode="compat"} 1.0',
        'kmesh_capability{capability="connect.ipv4",verdict="present"} 1.0',
    ):
        assert wanted in lines


def test_the_socket_is_private_and_takes_commands(client: Client, daemon: FakeDaemon) -> None:
    assert client._path.stat().st_mode & 0o777 == 0o600
    client.post("/enroll", {"cgroup": "/c"})
    assert daemon.enrolled == ["/c"]
    client.post("/release", {"cgroup": "/c"})
    for netns in ("/proc/1/ns/net", 4026531840, "17"):
        client.post("/enroll", {"netns": netns, "holder": 7})
        assert daemon.enrolled == [f"{netns} for 7"]
        client.post("/release", {"netns": netns, "holder": 7})
    assert daemon.enrolled == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"cgroup": 1},
        {"cgroup": "relative"},
        {"netns": "relative"},
        {"netns": 0},
        {"netns": True},
        {"netns": [1]},
        {"netns": "/n", "holder": "me"},
        {"netns": "/n", "cgroup": "/c"},
    ],
)
def test_a_command_that_names_nobody_is_refused(client: Client, body: Any) -> None:
    with pytest.raises(DaemonError, match="must name a cgroup"):
        client.post("/enroll", body)


def test_the_client_passes_errors_on(client: Client) -> None:
    with pytest.raises(DaemonError, match="the kernel is being probed") as caught:
        client.get("/debug/probe")
    assert caught.value.hint == "wait"


def test_a_stale_socket_is_replaced(daemon: FakeDaemon, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with closing(serve_unix(path, api.control_routes(daemon))):
        Client(path).post("/enroll", {"cgroup": "/c"})


def test_no_daemon_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DaemonDownError, match="no kmesh daemon answers at"):
        Client(tmp_path / "none.sock").get("/version")


def test_a_taken_port_says_so(port: int) -> None:
    with pytest.raises(KmeshError, match=r"cannot listen on .*Address already in use"):
        serve_tcp(f"127.0.0.1:{port}", {})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("localhost:15200", ("127.0.0.1", 15200)),
        ("[::1]:9", ("::1", 9)),
        ("127.0.0.9:9", ("127.0.0.9", 9)),
    ],
)
def test_loopback_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "15200", "127.0.0.1:", "x:1", "127.0.0.1:70000"]
)
def test_only_loopback_is_listened_on(text: str) -> None:
    with pytest.raises(KmeshError):
        parse_address(text)


@pytest.mark.parametrize("body", ["a\udcff.yaml", {"a\udcff.yaml": "rejected"}])
def test_the_name_of_a_file_that_is_no_text_spoils_no_answer(body: object) -> None:
    encoded, _ = Reply(body).encode()
    assert "a?.yaml" in encoded.decode()
