# SPDX-License-Identifier: Apache-2.0
"""`kmesh run --mode enhanced`: the requests of one connection go where HTTPRoutes say, through whatever happens."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.bpf.maps import BpfMap
from runtime.launch.gate import GatePlace
from tests.dataplane.world import Agent
from tests.launch.actors import talking
from tests.launch.conftest import BACKENDS, Daemon, Node, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

ASKER = str(Path(__file__).with_name("asker.py"))
GREEN_VIP = "10.96.0.12"


def route(*rules: tuple[str, str]) -> str:
    """An HTTPRoute of the service web: path prefixes to services."""
    listed = "".join(
        f"\n  - matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]\n"
        f"    backendRefs: [{{name: {service}, port: 80}}]"
        for prefix, service in rules
    )
    return (
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\n"
        "spec:\n  parentRefs: [{group: '', kind: Service, name: web, port: 80}]\n"
        f"  rules:{listed}\n"
    )


def one_service(name: str, vip: str, backend: str) -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{clusterIP: {vip}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n"
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n"
        f"addressType: IPv4\nports: [{{name: http, port: 8080}}]\n"
        f"endpoints: [{{addresses: [{BACKENDS[backend]}]}}]\n"
    )


SERVICES = one_service("web", "10.96.0.10", "blue") + one_service("green", GREEN_VIP, "green")
BY_PATH = route(("/green", "green"), ("/", "web"))


class Mesh:
    """A node whose daemon runs the enhanced path, and a managed client."""

    def __init__(self, node: Node, environment: dict[str, str]) -> None:
        self.node = node
        self.environment = environment
        node.environment |= environment
        node.write(SERVICES)
        node.write(BY_PATH, "route.yaml")
        self.daemon = self.start()

    def start(self, *arguments: str) -> Daemon:
        self.daemon = self.node.daemon("--mode", "enhanced", *arguments).wait_ready()
        return self.daemon

    def client(self) -> Agent:
        run = [sys.executable, "-m", "runtime.cli.main", "exec", "--", sys.executable, ASKER]
        return talking(self.node, run)

    def status(self) -> Any:
        return self.node.ask("status")

    def gate_pid(self) -> int:
        return int(self.status()["gate"]["pid"])


@pytest.fixture
def mesh(node: Node, all_objects: Path, gate_program: Path, tmp_path: Path) -> Iterator[Mesh]:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "kmesh-gate").symlink_to(gate_program)
    made = Mesh(node, {"KMESH_OBJECTS": str(all_objects), "KMESH_PROGRAMS": str(programs)})
    yield made
    made.daemon.kill()
    assert "Sanitizer" not in (log := gate_log(node)), log
    node.kmesh("cleanup")
    assert gate_cgroups(node) == []


def gate_log(node: Node) -> str:
    log = node.run_dir / "gate.log"
    return log.read_text() if log.exists() else ""


def gate_cgroups(node: Node) -> list[Path]:
    """Cgroups of gates that were started from this node's run directory."""
    place = GatePlace.at(node.run_dir, Path())
    return [place.cgroup] if place.cgroup.exists() else []


def test_requests_of_one_connection_go_to_different_services(mesh: Mesh) -> None:
    client = mesh.client()
    number = client("connect", "10.96.0.10")
    said = [client("ask", number, path) for path in ("/", "/green", "/x", "/green/1") * 5]
    assert said == [[200, "blue"], [200, "green"]] * 10
    told = mesh.status()
    assert told["mode"] == "enhanced"
    assert told["gate"]["requests"]["taken"] >= 15
    rows = {row["match"]: row["place"] for row in mesh.node.ask("routes")["routes"]}
    assert set(rows.values()) == {"kernel"}
    # A service without routes of its own is HTTP all the same, and an unmanaged process is none of ours.
    assert client("ask", client("connect", GREEN_VIP), "/")[1] == "green"


def test_a_change_of_routes_and_endpoints_costs_no_request(mesh: Mesh) -> None:
    client = mesh.client()
    client("load", "10.96.0.10", "/green")
    until(lambda: client("loaded").get("200 green"), "no load")
    mesh.node.write(route(("/", "web")), "route.yaml")
    until(lambda: client("loaded").get("200 blue"), "the route does not change")
    mesh.node.write(BY_PATH, "route.yaml")
    before = client("loaded")["200 green"]
    until(lambda: client("loaded")["200 green"] > before + 50, "the route does not change back")
    mesh.node.write(
        one_service("web", "10.96.0.10", "blue") + one_service("green", GREEN_VIP, "blue")
    )
    before = client("loaded")["200 blue"]
    until(lambda: client("loaded")["200 blue"] > before + 50, "the endpoint does not change")
    assert set(client("loaded")) == {"200 blue", "200 green"}
    assert mesh.status()["sync"]["failed"] == {}


def test_a_route_that_goes_leaves_nothing_of_it(mesh: Mesh) -> None:
    tables = next((mesh.node.pins / "enhanced").glob("[0-9a-f]*"))

    def count(name: str) -> int:
        table = BpfMap.pinned(tables / name)
        try:
            return len(list(table.keys()))
        finally:
            table.close()

    names = ("http_ports", "http_routes", "http_grammars", "http_graphs", "clusters", "slots")
    before = {name: count(name) for name in names}
    many = route(*((f"/p{n}", "green") for n in range(50)), ("/", "web"))
    mesh.node.write(many, "route.yaml")
    until(lambda: count("http_routes") > before["http_routes"] + 40, "the routes do not come")
    mesh.node.write(BY_PATH, "route.yaml")
    until(lambda: {name: count(name) for name in names} == before, "something is left")


def test_a_killed_daemon_costs_no_request_and_is_taken_over_from(mesh: Mesh) -> None:
    client = mesh.client()
    number = client("connect", "10.96.0.10")
    assert client("ask", number, "/green") == [200, "green"]
    gate = mesh.gate_pid()
    client("load", "10.96.0.10", "/green")
    until(lambda: client("loaded").get("200 green"), "no load")
    mesh.daemon.kill()
    mesh.node.write(route(("/", "web")), "route.yaml")
    assert client("ask", number, "/green") == [200, "green"]
    mesh.start()
    until(lambda: client("ask", number, "/green") == [200, "blue"], "the new route is not there")
    assert mesh.gate_pid() == gate
    assert set(client("loaded")) <= {"200 green", "200 blue"}


def leave_as_another_version(mesh: Mesh) -> Path:
    """Have what is pinned, and the gate that runs, be of a version that lays its tables out otherwise."""
    home = mesh.node.pins / "enhanced"
    (tables,) = home.glob("[0-9a-f]*")
    other = tables.rename(home / "0123456789abcdef")
    note = mesh.node.run_dir / "gate.maps"
    assert note.read_text() == str(tables)
    note.write_text(str(other))
    return tables


def wait_for_more(client: Agent) -> None:
    before = client("loaded")["200 green"]
    until(lambda: client("loaded")["200 green"] > before + 50, "no more load")


def test_another_layout_takes_over_and_no_new_connection_is_refused(mesh: Mesh) -> None:
    client = mesh.client()
    many = route(*((f"/p{n}", "web") for n in range(300)), ("/green", "green"), ("/", "web"))
    mesh.node.write(many, "route.yaml")
    until(lambda: len(mesh.node.ask("routes")["routes"]) > 300, "the routes do not come")
    held = client("connect", "10.96.0.10")
    assert client("ask", held, "/green") == [200, "green"]
    for _ in range(4):
        client("knock", "10.96.0.10", "/green")
    until(lambda: client("loaded").get("200 green"), "no load")
    for _ in range(2):
        gate = mesh.gate_pid()
        mesh.daemon.kill()
        tables = leave_as_another_version(mesh)
        mesh.start()
        assert sorted(one.name for one in tables.parent.glob("[0-9a-f]*")) == [tables.name]
        assert mesh.gate_pid() != gate
        wait_for_more(client)
        assert client("ask", held, "/green") == [200, "green"]  # by the gate that it came to
    assert set(client("loaded")) == {"200 green"}
    assert not (mesh.node.run_dir / "gate.sock.next").exists()


def test_a_gate_that_dies_is_started_again(mesh: Mesh) -> None:
    client = mesh.client()
    number = client("connect", "10.96.0.10")
    assert client("ask", number, "/green") == [200, "green"]
    gate = mesh.gate_pid()
    os.kill(gate, signal.SIGKILL)
    until(lambda: client("ask", number, "/green")[0] == 0, "the connection does not end")
    until(lambda: client("try", "10.96.0.10", "/green") == [200, "green"], "no gate in its place")
    told = mesh.status()["gate"]
    assert told["restarts"] == 1
    assert told["pid"] != gate
    assert "THE GATE DIED" in mesh.daemon.log


def test_the_end_leaves_nothing_and_keeping_leaves_all(mesh: Mesh) -> None:
    client = mesh.client()
    number = client("connect", "10.96.0.10")
    assert client("ask", number, "/green") == [200, "green"]
    gate = mesh.gate_pid()
    mesh.daemon.terminate()
    assert not mesh.node.pins.exists() or not list(mesh.node.pins.iterdir())
    assert not is_alive(gate)
    assert gate_cgroups(mesh.node) == []
    mesh.start("--keep-datapath")
    gate = mesh.gate_pid()
    mesh.daemon.terminate()
    assert is_alive(gate)
    done = mesh.node.kmesh("cleanup")
    assert "the gate of" in done.stdout
    assert not is_alive(gate)


def test_another_mode_takes_over_and_leaves_nothing_of_the_one_before(mesh: Mesh) -> None:
    client = mesh.client()
    assert client("try", "10.96.0.10", "/green") == [200, "green"]
    mesh.daemon.kill()
    gate = until(lambda: gate_pids(mesh.node), "there is no gate")[0]
    daemon = mesh.node.daemon("--mode", "compat").wait_ready()
    assert not (mesh.node.pins / "enhanced").exists()
    until(lambda: not is_alive(gate), "the gate is still there")
    assert client("try", "10.96.0.10", "/green") == [200, "blue"]  # no routes on this path
    daemon.kill()
    mesh.start()
    assert not (mesh.node.pins / "compat").exists()
    assert client("try", "10.96.0.10", "/green") == [200, "green"]


def is_alive(pid: int) -> bool:
    """Whoever inherits a process may be slow to see its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def gate_pids(node: Node) -> list[int]:
    return [
        int(pid)
        for cgroup in gate_cgroups(node)
        for pid in (cgroup / "cgroup.procs").read_text().split()
    ]


def test_without_a_gate_the_path_is_not_started(node: Node, all_objects: Path) -> None:
    environment = {"KMESH_OBJECTS": str(all_objects), "KMESH_PROGRAMS": str(node.path)}
    daemon = node.daemon("--mode", "enhanced", **environment)
    assert daemon.wait() != 0
    assert "no kmesh-gate in" in daemon.log
    assert not node.pins.exists() or not list(node.pins.iterdir())
