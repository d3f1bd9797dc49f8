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
from tests.launch.pod import REFUSED, SERVER, Command, Pod, managed
from tests.launch.test_launch_authorization import NOT_FROM_OUTSIDE
from tests.source.istiod.mesh_messages import policy, workload

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
