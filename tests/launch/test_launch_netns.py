# SPDX-License-Identifier: Apache-2.0
"""Workloads that a daemon manages by their network namespace, whatever their cgroup is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from google.protobuf import json_format

from runtime.kernel.netns import netns_cookie
from runtime.server.client import Client, DaemonError
from tests.launch.conftest import CLIENT, VIP, Node
from tests.launch.istiod import SOURCE, Istiod
from tests.launch.pod import REFUSED, SERVER, Command, Pod, managed
from tests.launch.test_launch_acceleration import _PAIR
from tests.launch.test_launch_authorization import NOT_FROM_OUTSIDE
from tests.launch.test_launch_telemetry import told
from tests.source.istiod.mesh_messages import policy, workload

pytestmark = pytest.mark.root

ASK = [sys.executable, "-c", CLIENT, VIP, "10"]


@pytest.fixture
def pod(node: Node) -> Iterator[Pod]:
    with ExitStack() as stack:
        made = Pod(node, stack)
        made.ip("route", "add", "blackhole", "10.96.0.0/12")
        yield made


def tell(node: Node, what: str, **body: object) -> None:
    Client(node.run_dir / "kmesh.sock").post(what, body)


def answers(pod: Pod) -> set[str]:
    return set(pod.call(ASK).split())


SERVED, NOBODY = {"blue", "green"}, {"OSError"}


def test_a_namespace_is_managed_from_when_it_is_enrolled_until_it_is_released(
    node: Node, pod: Pod
) -> None:
    daemon = node.daemon().wait_ready()
    assert answers(pod) == NOBODY
    tell(node, "/enroll", netns=str(pod.path))
    assert answers(pod) == SERVED
    told(node, "kmesh_tcp_connections_closed_total", 10)
    assert node.ask("status")["counts"]["managed_namespaces"] == 1
    assert str(pod.path) in node.ask("status")["managed"][0]
    assert node.http("/debug/ready")[0] == 200
    tell(node, "/release", netns=str(pod.path))
    assert answers(pod) == NOBODY
    assert node.ask("status")["managed"] == []
    assert not list(node.pins.glob("*/links/netns-*"))
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()


def test_a_cookie_will_do(node: Node, pod: Pod) -> None:
    node.daemon().wait_ready()
    cookie = netns_cookie(pod.path)
    tell(node, "/enroll", netns=cookie)
    assert answers(pod) == SERVED
    assert node.ask("status")["managed"] == [f"netns {cookie} {pod.path}"]
    tell(node, "/release", netns=str(cookie))
    assert answers(pod) == NOBODY


def test_what_is_no_namespace_is_refused(node: Node) -> None:
    node.daemon().wait_ready()
    for wrong in ("/nowhere", str(node.services)):
        with pytest.raises(DaemonError, match=wrong):
            tell(node, "/enroll", netns=wrong)
    assert node.ask("status")["managed"] == []


def test_the_next_daemon_remembers_and_one_that_lost_its_note_finds_out(
    node: Node, pod: Pod
) -> None:
    daemon = node.daemon().wait_ready()
    tell(node, "/enroll", netns=str(pod.path))
    for note in (True, False):
        daemon.kill()
        assert answers(pod) == SERVED
        if not note:
            (node.run_dir / "state.json").unlink()
        daemon = node.daemon().wait_ready()
        assert str(pod.path) in node.ask("status")["managed"][0]
        assert answers(pod) == SERVED
    tell(node, "/release", netns=str(pod.path))
    assert answers(pod) == NOBODY


def test_policies_guard_a_namespace_before_its_enrolment_is_confirmed(node: Node, pod: Pod) -> None:
    inside = json_format.ParseDict(NOT_FROM_OUTSIDE, policy("inside"))
    Istiod(node, workload("pod", pod.address, service_account="pod"), inside)
    daemon = node.daemon(source=SOURCE).wait_ready()
    with Command(node, pod.inside([sys.executable, "-c", SERVER, pod.address])):
        assert pod.reached() == "open"
        tell(node, "/enroll", netns=str(pod.path))
        assert pod.reached() == REFUSED
        assert node.ask("policies")["namespaces"] == {"guarded": 2, "managed": 2}
        daemon.kill()
        assert pod.reached() == REFUSED
        node.daemon(source=SOURCE).wait_ready()
        assert node.ask("policies")["namespaces"] == {"guarded": 2, "managed": 2}
        assert pod.reached() == REFUSED


def test_kmesh_exec_in_a_namespace(node: Node, pod: Pod) -> None:
    node.daemon("--acceleration").wait_ready()
    run = node.kmesh("exec", "--netns", str(pod.path), "--", *ASK)
    assert set(run.stdout.split()) == SERVED, run.stderr
    assert node.ask("status")["managed"] == []
    assert node.kmesh("exec", "--netns", "/nowhere", "--", "true").returncode == 2
    with Command(node, managed(["sh", "-c", "echo up; exec sleep 60"], "--netns", str(pod.path))):
        assert node.kmesh("exec", "--netns", str(pod.path), "--", "true").returncode == 0
        assert answers(pod) == SERVED  # who ended first does not take it from the other


def test_connections_within_managed_namespaces_are_accelerated(node: Node, pod: Pod) -> None:
    daemon = node.daemon("--acceleration").wait_ready()
    run = node.kmesh("exec", "--netns", str(pod.path), "--", sys.executable, "-c", _PAIR)
    assert run.stdout == "whole\n", run.stderr
    assert node.ask("status")["acceleration"]["paired"] == 1
    assert pod.call([sys.executable, "-c", _PAIR]) == "whole\n"
    assert node.ask("status")["acceleration"]["paired"] == 1  # of who is not managed, none
    both = [sys.executable, "-c", _PAIR]  # a cgroup of its own in a namespace that is managed
    tell(node, "/enroll", netns=str(pod.path))
    run = node.kmesh("exec", "--", "ip", "netns", "exec", pod.name, *both)
    assert run.stdout == "whole\n", run.stderr
    assert node.ask("status")["acceleration"]["paired"] == 2
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()


def test_a_namespace_that_no_path_leads_to_cannot_be_guarded_and_readiness_says_so(
    node: Node,
) -> None:
    inside = json_format.ParseDict(NOT_FROM_OUTSIDE, policy("inside"))
    istiod = Istiod(node, workload("pod", "10.244.7.1", service_account="pod"), inside)
    node.daemon(source=SOURCE).wait_ready()
    with ExitStack() as stack:
        place = Pod(node, stack).path.open()  # which keeps it alive when its path is gone
    cookie = netns_cookie(Path(f"/proc/self/fd/{place.fileno()}"))
    tell(node, "/enroll", netns=cookie)
    assert node.http("/debug/ready") == (
        503,
        f"not ready: NOT GUARDED: no path is known to network namespace {cookie}\n",
    )
    istiod.remove("shop/inside")
    node.until(lambda: node.http("/debug/ready")[0] == 200, "nobody has to be guarded")
    tell(node, "/release", netns=cookie)
    assert node.ask("status")["managed"] == []
    place.close()


def test_a_namespace_that_is_gone_is_forgotten(node: Node) -> None:
    node.daemon().wait_ready()
    with ExitStack() as stack:
        tell(node, "/enroll", netns=str(Pod(node, stack).path))
        assert node.ask("status")["counts"]["managed_namespaces"] == 1
    # It is gone, and its links with it, only when the gate does not listen there any more.
    node.until(lambda: node.call(["ip", "link", "show", "pod0"]).returncode, "it is kept alive")
    with ExitStack() as stack:
        pod = Pod(node, stack)
        tell(node, "/enroll", netns=str(pod.path))
        assert [str(pod.path) in one for one in node.ask("status")["managed"]] == [True]
