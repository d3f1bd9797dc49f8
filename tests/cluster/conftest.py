# SPDX-License-Identifier: Apache-2.0
"""One cluster for all tests here, with Kmesh and a sample application on it; gone afterwards.

KMESH_TEST_CLUSTER=DIR uses the one that is up there (make cluster: build/cluster), and leaves it up;
KMESH_TEST_CGROUPS=v2 makes one whose node has version 2 control groups alone (make test-cluster-v2).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ci.cluster import binaries, cgroups, image, kmesh, sample
from ci.cluster.machine import Machine, why_not
from runtime.errors import KmeshError
from tests.launch.conftest import until

SHOP, ADDRESS = "shop", "10.96.8.8"
MODE = "istio.io/dataplane-mode"
# Asks the service without pause, each time by a new connection, until a file appears; then says what it got.
LOAD = """
import collections, http.client, json, os, sys
host, stop = sys.argv[1:]
got = collections.Counter()
print("up", flush=True)
while not os.path.exists(stop):
    try:
        c = http.client.HTTPConnection(host, 80, timeout=5)
        c.request("GET", "/")
        c.getresponse().read()
        got["answered"] += 1
        c.close()
    except OSError as error:
        got[repr(error)] += 1
print(json.dumps(got), flush=True)
"""
# Keeps one connection and asks through it for as long as it is told a line; says the answer, or what went wrong.
HELD = """
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], 80, timeout=5)
for _ in sys.stdin:
    try:
        c.request("GET", "/")
        print(c.getresponse().read().decode().strip(), flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""
ASK = """
import collections, http.client, json, sys
host, count = sys.argv[1], int(sys.argv[2])
got = collections.Counter()
for _ in range(count):
    try:
        c = http.client.HTTPConnection(host, 80, timeout=3)
        c.request("GET", "/")
        got[c.getresponse().read().decode().strip()] += 1
        c.close()
    except OSError as error:
        got[type(error).__name__] += 1
print(json.dumps(got))
"""


class Cluster:
    """The machine, and what tests ask of it."""

    address = ADDRESS

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kubectl = machine.kubectl
        self.get = machine.get

    def in_pod(self, script: str, *arguments: str, pod: str = "client") -> list[str]:
        """A command line for a script in a pod."""
        return [
            *("kubectl", "-n", SHOP, "exec", "-i", pod, "--"),
            *("python3", "-c", script, *arguments),
        ]

    def ask(self, count: int = 20, pod: str = "client") -> Counter[str]:
        """What the pod gets from the service."""
        out = self.machine.run(*self.in_pod(ASK, self.address, str(count), pod=pod))
        return Counter(json.loads(out))

    def servers(self) -> set[str]:
        pods = self.get("-n", SHOP, "pods", "-l", "app=web")["items"]
        return {
            pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
        }

    def label_namespace(self, mode: str | None) -> None:
        change = f"{MODE}-" if mode is None else f"{MODE}={mode}"
        self.kubectl("label", "--overwrite", "namespace", SHOP, change)

    def annotation(self, pod: str) -> str | None:
        found = self.get("-n", SHOP, "pod", pod)["metadata"].get("annotations") or {}
        value: str | None = found.get("kmesh.net/redirection")
        return value

    def until_annotated(self, pod: str, value: str | None) -> None:
        until(lambda: self.annotation(pod) == value, f"{pod} is not annotated {value}")

    def daemon(self) -> dict[str, Any]:
        """The daemon's pod."""
        pods = self.get("-n", kmesh.NAMESPACE, "pods", "-l", "app=kmesh")["items"]
        (pod,) = [each for each in pods if "deletionTimestamp" not in each["metadata"]]
        found: dict[str, Any] = pod
        return found

    def until_ready(self, *, other_than: str = "") -> None:
        """Wait for a daemon that is ready, and another one than before."""

        def is_ready() -> bool:
            with suppress(ValueError, KeyError, IndexError, KmeshError):
                pod = self.daemon()
                status = pod["status"]["containerStatuses"][0]
                identity = f"{pod['metadata']['uid']} {status['restartCount']}"
                return bool(status["ready"]) and identity != other_than
            return False

        until(is_ready, "the daemon is not ready")

    def identity(self) -> str:
        pod = self.daemon()
        return f"{pod['metadata']['uid']} {pod['status']['containerStatuses'][0]['restartCount']}"

    def ctl(self, *arguments: str) -> Any:
        """What kmeshctl in the daemon's pod says, as JSON."""
        command = ("exec", "ds/kmesh", "--", "kmeshctl", *arguments, "--output", "json")
        return json.loads(self.kubectl("-n", kmesh.NAMESPACE, *command))

    def governed(self) -> int:
        """How many pods of the application the daemon governs."""
        pods = self.ctl("pods")
        return sum(pod["governed"] and pod["pod"].startswith(f"{SHOP}/") for pod in pods)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A cluster with the image in it, and nothing installed."""
    if given := os.environ.get("KMESH_TEST_CLUSTER"):
        yield Machine(Path(given))
        return
    if reason := why_not():
        pytest.skip(reason)
    if not binaries.are_built():
        pytest.skip("Kubernetes is not built: python -m ci.cluster prepare")
    groups = os.environ.get("KMESH_TEST_CGROUPS", cgroups.HOST)
    made = Machine(tmp_path_factory.mktemp("cluster"), cgroups=groups)
    try:
        archive = image.archive()
        made.up()
        made.load_image(archive)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def installed(machine: Machine) -> Cluster:
    """With Kmesh, and the sample application in a namespace without a label."""
    kmesh.install(machine)
    sample.deploy(machine, SHOP, address=ADDRESS, label=False)
    return Cluster(machine)


@pytest.fixture
def cluster(installed: Cluster) -> Iterator[Cluster]:
    """The same, and the namespace without a label again afterwards."""
    yield installed
    installed.label_namespace(None)
    installed.until_annotated("client", None)


@pytest.fixture
def labelled(cluster: Cluster) -> Cluster:
    """With the namespace's pods governed."""
    cluster.label_namespace("kmesh")
    for pod in ("client", *cluster.servers()):
        cluster.until_annotated(pod, "enabled")
    return cluster
