# SPDX-License-Identifier: Apache-2.0
"""Pods of a real cluster, in and out of the data path by their labels."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.cluster.image import REPOSITORY, TAG
from ci.cluster.init import OWN
from tests.cluster.conftest import HELD, MODE, SHOP, Cluster
from tests.launch.conftest import until

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.cluster]


def pod(name: str, code: str, **metadata: object) -> str:
    """A pod that runs a script once."""
    container = {
        "name": "main",
        "image": f"{REPOSITORY}:{TAG}",
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", code],
    }
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    about = {"name": name, "namespace": SHOP, **metadata}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})


@pytest.fixture
def extra(cluster: Cluster) -> Iterator[str]:
    """A pod's name; the pod is gone afterwards."""
    name = "extra"
    yield name
    cluster.kubectl("-n", SHOP, "delete", "pod", name, "--ignore-not-found", "--wait=true")


FIRST = """
import urllib.request
print(urllib.request.urlopen("http://10.96.8.8/", timeout=3).read().decode())
"""


def phase(cluster: Cluster, name: str) -> str:
    value: str = cluster.get("-n", SHOP, "pod", name)["status"]["phase"]
    return value


def test_node_says_what_it_runs(cluster: Cluster) -> None:
    labels = cluster.get("node", "node1")["metadata"]["labels"]
    assert labels["kmesh.net/mode"] in ("compat", "enhanced")
    assert labels["kmesh.net/capability.btf"] == "present"
    status = cluster.ctl("status")
    assert status["mode"] == labels["kmesh.net/mode"]
    assert status["enrolment"]["cni"] == "installed"


def test_label_moves_running_pods_in_and_out(cluster: Cluster) -> None:
    """There is no kube-proxy here: only who is governed reaches a service."""
    assert not set(cluster.ask(1)) & cluster.servers()
    cluster.label_namespace("kmesh")
    cluster.until_annotated("client", "enabled")
    answers = cluster.ask(60)
    assert set(answers) == cluster.servers(), answers
    assert min(answers.values()) > 10
    assert cluster.governed() == 3
    cluster.label_namespace(None)
    cluster.until_annotated("client", None)
    assert not set(cluster.ask(1)) & cluster.servers()


def test_open_connections_survive_the_label(labelled: Cluster) -> None:
    argv = labelled.machine.inside(labelled.in_pod(HELD, labelled.address))
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as held:
        assert held.stdin
        assert held.stdout

        def once() -> str:
            assert held.stdin
            assert held.stdout
            held.stdin.write("\n")
            return held.stdout.readline().strip()

        server = once()
        assert server in labelled.servers()
        labelled.label_namespace(None)
        labelled.until_annotated("client", None)
        assert once() == server
        labelled.label_namespace("kmesh")
        labelled.until_annotated("client", "enabled")
        assert once() == server
        held.stdin.close()


def test_pod_labelled_alone_is_enrolled(cluster: Cluster) -> None:
    cluster.kubectl("-n", SHOP, "label", "pod", "client", f"{MODE}=kmesh")
    try:
        cluster.until_annotated("client", "enabled")
        assert set(cluster.ask(20)) <= cluster.servers()
    finally:
        cluster.kubectl("-n", SHOP, "label", "pod", "client", f"{MODE}-")
    cluster.until_annotated("client", None)


def test_first_connection_of_a_new_pod_is_governed(labelled: Cluster, extra: str) -> None:
    """Its only process connects at once, and has one attempt."""
    labelled.machine.apply(pod(extra, FIRST))
    until(lambda: phase(labelled, extra) in ("Succeeded", "Failed"), "the pod does not end")
    log = labelled.kubectl("-n", SHOP, "logs", extra)
    assert log.strip() in labelled.servers(), log


def test_pod_that_opts_out_is_left_alone(labelled: Cluster, extra: str) -> None:
    labelled.machine.apply(pod(extra, FIRST, labels={MODE: "none"}))
    until(lambda: phase(labelled, extra) == "Failed", "it reached a service")
    assert labelled.annotation(extra) is None


def test_nothing_leaks_when_pods_come_and_go(labelled: Cluster, extra: str) -> None:
    before = labelled.governed()
    for _ in range(2):
        labelled.machine.apply(pod(extra, "import time; time.sleep(600)"))
        labelled.until_annotated(extra, "enabled")
        assert labelled.governed() == before + 1
        labelled.kubectl("-n", SHOP, "delete", "pod", extra, "--wait=true")
        until(
            lambda: labelled.governed() == before,
            "a pod that is gone is still governed",
        )


def test_plugin_is_put_back_when_another_tool_rewrites_the_chain(cluster: Cluster) -> None:
    path = "/etc/cni/net.d/10-bridge.conflist"
    text = cluster.machine.run("cat", path)
    plain = json.loads(text)
    plain["plugins"] = [each for each in plain["plugins"] if each["type"] != "kmesh-cni"]
    cluster.machine.run("tee", path, stdin=json.dumps(plain))
    until(lambda: "kmesh-cni" in cluster.machine.run("cat", path), "it was not put back")


def test_nothing_of_the_node_shows_on_the_host(cluster: Cluster) -> None:
    """Its mounts are its own, whatever of the host's is shared (`ip netns` shares its directory)."""
    for place in OWN:
        inside = int(cluster.machine.run("stat", "--format=%d", place))
        assert not Path(place).exists() or Path(place).stat().st_dev != inside, place
