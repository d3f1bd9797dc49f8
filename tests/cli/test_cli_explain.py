# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl explain` and its neighbours, with a real daemon and after its death."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.launch.conftest import Node

pytestmark = pytest.mark.root

SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, fd00:96::10]
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: dns, port: 53, targetPort: 5353, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: shop}
spec: {clusterIP: 10.96.0.20, ports: [{port: 80}]}
"""


def slice_of(family: str, endpoints: str) -> str:
    return f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{family.lower()}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: {family}
ports: [{{name: http, port: 8080}}, {{name: dns, port: 5353, protocol: UDP}}]
endpoints:
{endpoints}
"""


def pod(name: str, address: str, more: str = "") -> str:
    return f"- {{addresses: ['{address}'], targetRef: {{kind: Pod, name: {name}}}{more}}}\n"


IPV4 = slice_of(
    "IPv4",
    pod("blue", "10.244.0.11", ", zone: a, nodeName: n1")
    + pod("green", "10.244.0.12")
    + pod("sick", "10.244.0.13", ", conditions: {ready: false}"),
)
IPV6 = slice_of("IPv6", pod("blue", "fd00:244::11") + pod("purple", "fd00:244::14"))


class Shop(Node):
    """A node with a service in two families, one with nobody behind it, and a daemon."""

    before: Any = None  # what was told while the daemon lived

    def open(self) -> Shop:
        self.write(SERVICE + IPV4 + IPV6)
        self.served_by = self.daemon().wait_ready()
        return self


@contextmanager
def opened(path: Path) -> Iterator[Shop]:
    with ExitStack() as stack:
        made = Shop(path, stack)
        stack.callback(made.clean)
        yield made.open()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, objects: Path) -> Iterator[Shop]:
    """For tests that only look."""
    with opened(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory, objects: Path) -> Iterator[Shop]:
    """The same after kill -9, for tests that only look."""
    with opened(tmp_path_factory.mktemp("fallen")) as made:
        made.before = explain(made, "10.96.0.10:80")
        made.served_by.kill()
        yield made


@pytest.fixture
def own(tmp_path: Path, objects: Path) -> Iterator[Shop]:
    """For a test that changes something."""
    with opened(tmp_path) as made:
        yield made


def run(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    return node.call([sys.executable, "-m", "runtime.cli.ctl", *arguments])


def explain(node: Node, *arguments: str) -> Any:
    done = run(node, "explain", *arguments, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shares(destination: Any) -> dict[str, float]:
    return {one["address"]: one["share_percent"] for one in destination["endpoints"]}


def test_a_service_is_told_with_endpoints_shares_and_who_is_left_out(shop: Shop) -> None:
    (found,) = explain(shop, "10.96.0.10:80")["destinations"]
    assert (found["frontend"], found["verdict"]) == ("10.96.0.10:80/TCP", "balanced")
    assert found["service"]["key"] == "shop/web.shop.svc.cluster.local"
    assert found["service"]["port_name"] == "http"
    assert shares(found) == {"10.244.0.11": 50, "10.244.0.12": 50}
    assert {one["port"] for one in found["endpoints"]} == {8080}
    assert [one["workload"]["name"] for one in found["endpoints"]] == ["blue", "green"]
    assert found["endpoints"][0]["workload"]["node"] == "n1"
    reasons = {one["name"]: one["reason"] for one in found["unused"]}
    assert reasons == {"sick": "not ready", "purple": "has no IPv4 address"}


def test_people_read_the_same(shop: Shop) -> None:
    shown = shop.kmeshctl("explain", "10.96.0.10:80")
    first = shown.splitlines()[0]
    assert first == "10.96.0.10:80/TCP  service shop/web.shop.svc.cluster.local, port http"
    assert "straight to one of 2 endpoints" in shown
    assert "50 %" in shown
    assert "shop/sick" in shown
    assert "not ready" in shown
    assert "no process is managed on this node now" in shown
    assert "\x1b" not in shown


def test_without_a_port_every_port_is_told(shop: Shop) -> None:
    found = [one["frontend"] for one in explain(shop, "10.96.0.10")["destinations"]]
    assert found == ["10.96.0.10:53/UDP", "10.96.0.10:80/TCP"]
    udp = explain(shop, "10.96.0.10", "--protocol", "udp")["destinations"]
    assert [one["frontend"] for one in udp] == ["10.96.0.10:53/UDP"]
    assert udp[0]["acceleration"]["on"] is False


@pytest.mark.parametrize("address", ["[fd00:96::10]:80", "[FD00:96:0::10]:80"])
def test_ipv6_has_its_own_endpoints(shop: Shop, address: str) -> None:
    (found,) = explain(shop, address)["destinations"]
    assert found["frontend"] == "[fd00:96::10]:80/TCP"
    assert shares(found) == {"fd00:244::11": 50, "fd00:244::14": 50}
    reasons = {one["name"]: one["reason"] for one in found["unused"]}
    assert reasons["green"] == "has no IPv6 address"


@pytest.mark.parametrize("address", ["[::ffff:10.96.0.10]:80", "[::ffff:a60:a]:80"])
def test_a_mapped_address_is_an_ipv4_address(shop: Shop, address: str) -> None:
    assert explain(shop, address) == explain(shop, "10.96.0.10:80")


def test_a_service_without_endpoints_is_said_to_refuse(shop: Shop) -> None:
    (found,) = explain(shop, "10.96.0.20:80")["destinations"]
    assert (found["verdict"], found["endpoints"]) == ("refused", [])
    assert "refused at once" in shop.kmeshctl("explain", "10.96.0.20:80")


def test_a_port_that_the_service_has_not(shop: Shop) -> None:
    answer = explain(shop, "10.96.0.10:81", "--protocol", "tcp")
    assert (answer["verdict"], answer["destinations"]) == ("direct", [])
    assert "has no port 81/TCP in the kernel (it has 53/UDP, 80/TCP)" in answer["meaning"]


def test_an_address_of_nobody_and_one_of_a_workload(shop: Shop) -> None:
    answer = explain(shop, "192.0.2.1:443")
    assert answer["verdict"] == "direct"
    assert answer["meaning"] == "not a service: a connection goes where it was going"
    answer = explain(shop, "10.244.0.11:8080")
    assert answer["verdict"] == "direct"
    assert answer["meaning"].startswith("a workload's own address")
    assert [one["name"] for one in answer["workloads"]] == ["blue"]


def test_it_says_for_whom(shop: Shop) -> None:
    program = "from runtime.cli.ctl import main; import sys; sys.argv[1:] = ['explain', '10.96.0.10:80', '-o', 'json']; main()"
    done = shop.kmesh("exec", "--", sys.executable, "-c", program)
    (cgroup,) = json.loads(done.stdout)["managed"]["cgroups"]
    assert "kmesh" in cgroup


def test_it_is_the_kernel_that_is_read(own: Shop) -> None:
    """The answer follows what clients get, and is the same every time."""
    before = explain(own, "10.96.0.10:80")
    assert explain(own, "10.96.0.10:80") == before
    own.write(SERVICE + slice_of("IPv4", pod("green", "10.244.0.12")))
    own.until(
        lambda: shares(explain(own, "10.96.0.10:80")["destinations"][0]) == {"10.244.0.12": 100},
        "change not seen",
    )
    assert own.answers(5) == {"green": 5}


def test_a_bad_question_over_http_is_an_error(shop: Shop) -> None:
    status, body = shop.http("/explain?to=web")
    assert (status, json.loads(body)["error"]) == (409, "'web' is no IP address")
    status, body = shop.http("/explain?to=10.96.0.10:80\\&protocol=sctp")
    assert (status, json.loads(body)["error"]) == (409, "no protocol 'sctp'")
    status, body = shop.http("/explain?to=10.96.0.10:80\\&protocol=tcp")
    assert json.loads(body) == explain(shop, "10.96.0.10:80", "--protocol", "tcp")


# Without the daemon.


def test_after_kill_9_the_maps_answer_and_it_is_said(fallen: Shop) -> None:
    before = fallen.before["destinations"][0]
    done = run(fallen, "explain", "10.96.0.10:80", "--output", "json")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: daemon is down (no kmesh daemon answers at ")
    assert done.stderr.endswith(f"); read from the kernel's maps at {fallen.pins}\n")
    answer = json.loads(done.stdout)
    assert answer["read_from"] == "kernel maps"
    assert answer["daemon"].startswith("no kmesh daemon answers")
    (after,) = answer["destinations"]
    assert shares(after) == shares(before)
    assert (after["cluster"], after["service"]) == (before["cluster"], None)
    assert after.keys() == before.keys()
    assert "10.244.0.12:8080" in fallen.kmeshctl("explain", "10.96.0.10")


def test_after_kill_9_unknown_and_refused_are_still_told_apart(fallen: Shop) -> None:
    assert explain(fallen, "192.0.2.1:443")["verdict"] == "direct"
    assert explain(fallen, "10.96.0.20:80")["destinations"][0]["verdict"] == "refused"
    assert "only 53/UDP, 80/TCP" in explain(fallen, "10.96.0.10:81")["meaning"]
    assert shares(explain(fallen, "[fd00:96::10]:80")["destinations"][0]) == {
        "fd00:244::11": 50,
        "fd00:244::14": 50,
    }


def test_after_kill_9_the_lists_are_read_from_the_maps(fallen: Shop) -> None:
    done = run(fallen, "status", "--output", "json")
    assert done.returncode == 3
    status = json.loads(done.stdout)
    assert status["counts"]["service_ports"] == 5
    assert status["pins"] == str(fallen.pins)
    services = json.loads(run(fallen, "services", "--output", "json").stdout)
    assert services["read_from"] == "kernel maps"
    found = {one["frontend"]: [e["to"] for e in one["endpoints"]] for one in services["services"]}
    assert found == {
        "10.96.0.10:53/UDP": ["10.244.0.11:5353", "10.244.0.12:5353"],
        "10.96.0.10:80/TCP": ["10.244.0.11:8080", "10.244.0.12:8080"],
        "10.96.0.20:80/TCP": [],
        "[fd00:96::10]:53/UDP": ["[fd00:244::11]:5353", "[fd00:244::14]:5353"],
        "[fd00:96::10]:80/TCP": ["[fd00:244::11]:8080", "[fd00:244::14]:8080"],
    }
    workloads = json.loads(run(fallen, "workloads", "--output", "json").stdout)["workloads"]
    assert [one["address"] for one in workloads] == [
        "10.244.0.11",
        "10.244.0.12",
        "fd00:244::11",
        "fd00:244::14",
    ]
    assert "10.96.0.10:80/TCP at port 8080" in workloads[0]["serves"]


def test_after_kill_9_people_are_told_too(fallen: Shop) -> None:
    status = run(fallen, "status")
    assert status.returncode == 3
    assert "warning: daemon is down" in status.stderr
    assert "down: nothing changes in the kernel" in status.stdout
    assert "none: refused" in run(fallen, "services").stdout
    assert "10.96.0.10:80/TCP at port 8080" in run(fallen, "workloads").stdout


def test_another_place_of_pins_can_be_named(own: Shop) -> None:
    own.served_by.kill()
    (own.run_dir / "state.json").unlink()
    environment = {"KMESH_PINS": ""}
    command = [sys.executable, "-m", "runtime.cli.ctl", "explain", "10.96.0.10:80", "-o", "json"]
    named = own.call([*command, "--pins", str(own.pins)], **environment)
    assert json.loads(named.stdout)["destinations"]
    nowhere = own.call([*command, "--pins", f"{own.pins}-not"], **environment)
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert nowhere.stderr.startswith("error: no kmesh daemon answers")


def test_reading_leaves_no_trace(own: Shop) -> None:
    own.served_by.kill()
    before = sorted(str(path) for path in own.pins.rglob("*"))
    for question in ("status", "services", "workloads"):
        run(own, question)
    explain(own, "10.96.0.10")
    assert sorted(str(path) for path in own.pins.rglob("*")) == before
    own.daemon().wait_ready()  # no lock was kept
    assert explain(own, "10.96.0.10:80")["read_from"] == "daemon"
