# SPDX-License-Identifier: Apache-2.0
"""Policies in network namespaces of workloads' own, wherever below an enrolled cgroup they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from google.protobuf import json_format

from tests.launch.conftest import Node
from tests.launch.istiod import SOURCE, Istiod
from tests.launch.pod import OUTSIDE, REFUSED, SERVER, Command, Pod, managed
from tests.launch.test_launch_authorization import NOT_FROM_OUTSIDE, ONLY_GREEN
from tests.source.istiod.mesh_messages import policy, uid, workload

pytestmark = pytest.mark.root

# Enters a network namespace only after it has started, in a cgroup below the one that it was given.
_LATE = """
import os, pathlib, sys, time
name, address, below, server = sys.argv[1:]
if below:
    line = next(line for line in open("/proc/self/cgroup") if line.startswith("0::"))
    mounted = [line.split() for line in open("/proc/self/mounts")]
    root = min((mount[1] for mount in mounted if mount[2] == "cgroup2"), key=len)
    child = pathlib.Path(root + line.strip()[3:]) / below
    child.mkdir()
    (child / "cgroup.procs").write_text("0")
time.sleep(0.5)
os.execvp("ip", ["ip", "netns", "exec", name, sys.executable, "-c", server, address])
"""


@pytest.fixture
def pod(node: Node) -> Iterator[Pod]:
    with ExitStack() as stack:
        yield Pod(node, stack)


@pytest.mark.parametrize("below", ["", "container"], ids=["own cgroup", "cgroup below"])
def test_who_enters_a_namespace_after_being_enrolled_is_guarded_there(
    node: Node, pod: Pod, below: str
) -> None:
    inside = json_format.ParseDict(NOT_FROM_OUTSIDE, policy("inside"))
    Istiod(node, workload("pod", pod.address, service_account="pod"), inside)
    daemon = node.daemon(source=SOURCE).wait_ready()
    late = [sys.executable, "-c", _LATE, pod.name, pod.address, below, SERVER]
    with Command(node, managed(late)):
        node.until(lambda: pod.reached() == REFUSED, "never guarded")
        assert node.ask("policies")["namespaces"] == {"guarded": 2, "managed": 2}
        assert node.http("/debug/ready")[0] == 200
    assert daemon.terminate() == 0, daemon.log


def test_health_checks_of_the_node_pass_and_those_of_others_do_not(node: Node, pod: Pod) -> None:
    inside = json_format.ParseDict(NOT_FROM_OUTSIDE, policy("inside"))
    Istiod(node, workload("pod", pod.address, service_account="pod"), inside)
    daemon = node.daemon(source=SOURCE).wait_ready()
    with Command(node, managed([*pod.inside([sys.executable, "-c", SERVER]), pod.address])):
        node.until(lambda: pod.reached() == REFUSED, "never guarded")
        assert pod.reached(pod.near) == "open"
        assert node.ask("policies")["exempt"] == [pod.near]
        more = "10.244.7.8"
        node.check(["ip", "address", "add", f"{more}/32", "dev", "pod0"])
        node.until(lambda: pod.reached(more) == "open", "an address that came is not exempt")
        node.check(["ip", "address", "del", f"{more}/32", "dev", "pod0"])
        node.check(["ip", "address", "add", f"{more}/32", "dev", "lo"])
        node.until(lambda: pod.reached(more) == REFUSED, "one that went is exempt still")
        assert f"no policy refuses this node's own: {pod.near}" in node.kmeshctl("policies")
    assert daemon.terminate() == 0, daemon.log


def test_a_workloads_address_is_not_the_nodes(node: Node, pod: Pod) -> None:
    """Without the option, or where the mesh says that it is a workload's."""
    inside = json_format.ParseDict(ONLY_GREEN, policy("inside"))
    other = workload("other", pod.near, service_account="other")
    told = [workload("pod", pod.address, service_account="pod"), inside]
    istiod = Istiod(node, *told, other)
    daemon = node.daemon(source=SOURCE, INSTANCE_IP=OUTSIDE).wait_ready()
    with Command(node, managed([*pod.inside([sys.executable, "-c", SERVER]), pod.address])):
        node.until(lambda: pod.reached(pod.near) == REFUSED, "never guarded")
        assert pod.reached(OUTSIDE) == "open"  # the node's, as it was told
        istiod.remove(uid("other"))
        node.until(lambda: pod.reached(pod.near) == "open", "the node's own again")
    assert daemon.terminate() == 0, daemon.log
    node.daemon("--no-exempt-node", source=SOURCE).wait_ready()
    with Command(node, managed([*pod.inside([sys.executable, "-c", SERVER]), pod.address])):
        node.until(lambda: pod.reached(pod.near) == REFUSED, "exempt against what was said")
