# SPDX-License-Identifier: Apache-2.0
"""The whole enrolment against an API server: watches, the plugin, annotations, churn."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from runtime.cni.request import CniRequest
from runtime.enrol.annotate import Annotator
from runtime.enrol.enrolment import Enrolment
from runtime.enrol.node import NodeReport, labels_of, remove_features, write_features
from runtime.enrol.runner import Runner
from runtime.errors import KmeshError
from tests.cluster_api.fake import FakeApi
from tests.enrol.test_enrol_enrolment import Node, make_node
from tests.launch.conftest import until

REDIRECTION = "kmesh.net/redirection"


class Stage:
    """A node, an API server, and the enrolment between them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.api = FakeApi()
        self.says = Annotator(self.api)
        made = Enrolment(kernel=node, says=self.says, namespaces_of_node=node, cgroups=None)
        self.runner = Runner(made, api=self.api, node="node1")

    def run_pod(self, name: str, address: str, mode: str | None = None) -> None:
        self.node.found[frozenset({ip_address(address)})] = self.node.netns(name)
        labels = {"istio.io/dataplane-mode": mode} if mode else {}
        self.api.put_pod(name, ip=address, labels=labels)

    def annotation(self, name: str) -> str | None:
        value: str | None = self.api.pod(name)["metadata"]["annotations"].get(REDIRECTION)
        return value

    def request(self, command: str, name: str) -> CniRequest:
        netns = self.node.netns(name)
        return CniRequest(
            command=command, container="c", netns=netns, namespace="ns", pod=name, uid=f"uid-{name}"
        )

    def until_governed(self, *names: str) -> None:
        until(lambda: self.node.governed == set(names), f"governed: not {names}")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(make_node(tmp_path, monkeypatch))
    yield made
    made.runner.stop()
    made.says.stop()
    made.api.end_watches()


def test_labels_of_namespace_and_pod_are_followed(stage: Stage) -> None:
    stage.api.put_namespace("ns")
    stage.run_pod("a", "10.0.0.1")
    stage.run_pod("b", "10.0.0.2", "kmesh")
    stage.runner.start()
    stage.until_governed("b")
    until(lambda: stage.annotation("b") == "enabled", "the annotation is missing")
    stage.api.put_namespace("ns", "kmesh")
    stage.until_governed("a", "b")
    stage.run_pod("b", "10.0.0.2", "none")
    stage.until_governed("a")
    stage.api.put_namespace("ns")
    stage.until_governed()
    until(lambda: stage.annotation("a") is None, "the annotation still says enabled")
    assert stage.runner.not_ready() == ""


@pytest.mark.parametrize("forget", [False, True])
def test_nothing_is_lost_when_watches_end(stage: Stage, forget: bool) -> None:  # noqa: FBT001
    stage.api.put_namespace("ns", "kmesh")
    stage.run_pod("a", "10.0.0.1")
    stage.runner.start()
    stage.until_governed("a")
    stage.api.end_watches(forget=forget)
    stage.run_pod("b", "10.0.0.2")
    stage.until_governed("a", "b")


def test_plugin_does_not_wait_for_the_watch(stage: Stage) -> None:
    """The watch has not told of the pod: it is asked for."""
    stage.runner.start()
    until(lambda: stage.runner.not_ready() == "", "not heard of anything")
    stage.api.end_watches()
    stage.api.put_namespace("ns", "kmesh")
    stage.api.put_pod("a")
    assert stage.runner.on_cni(stage.request("ADD", "a")) == ""
    assert stage.node.governed == {"a"}
    assert stage.runner.on_cni(stage.request("CHECK", "a")) == ""
    assert stage.runner.on_cni(stage.request("DEL", "a")) == ""
    assert stage.node.governed == set()


def test_plugin_is_answered_when_the_api_server_is_down(stage: Stage) -> None:
    stage.api.put_namespace("ns", "kmesh")
    stage.runner.start()
    until(lambda: stage.runner.not_ready() == "", "not heard of anything")
    stage.api.down = True
    assert stage.runner.on_cni(stage.request("ADD", "a")) == ""
    stage.api.down = False
    stage.api.put_pod("a")
    stage.until_governed("a")


def test_annotation_is_retried_and_spares_namesakes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.enrol.annotate._RETRY_SECONDS", 0.05)
    stage.api.put_namespace("ns", "kmesh")
    stage.run_pod("a", "10.0.0.1")
    stage.runner.start()
    until(lambda: stage.annotation("a") == "enabled", "not annotated")
    body = stage.api.patched[0][1]
    assert body["metadata"]["uid"] == "uid-a"
    stage.api.down = True
    stage.api.put_namespace("ns")
    stage.until_governed()
    stage.api.down = False
    until(lambda: stage.annotation("a") is None, "not taken back")


_FRAMES = 8
_OURS = ("*/runtime/enrol/*", "*/runtime/cluster/*")


def traced() -> int:
    """Bytes that the enrolment asked for and holds; other tests' threads may still be at something."""
    ours = [tracemalloc.Filter(True, name, all_frames=True) for name in _OURS]
    found = tracemalloc.take_snapshot().filter_traces(ours)
    return sum(one.size for one in found.traces)


def test_memory_stays_flat_over_pods_that_come_and_go(stage: Stage) -> None:
    stage.api.put_namespace("ns", "kmesh")
    stage.runner.start()
    until(lambda: stage.runner.not_ready() == "", "not heard of anything")
    netns = stage.node.netns("pod")
    stage.node.found[frozenset({ip_address("10.0.0.1")})] = netns

    def churn(count: int) -> int:
        for number in range(count):
            name = "pod"
            stage.api.put_pod(name, ip="10.0.0.1", uid=f"uid-{number}")
            stage.api.remove("/api/v1/pods", f"/api/v1/namespaces/ns/pods/{name}")
        until(stage.api.is_idle, "news is left")
        until(stage.runner._work.empty, "work is left")
        until(lambda: stage.runner.describe() == [], "pods are left")
        until(lambda: not stage.says._wanted, "something is left to be said")
        stage.api.patched.clear()
        stage.node.history.clear()
        gc.collect()
        return traced()

    tracemalloc.start(_FRAMES)
    try:
        before = churn(500)
        assert before > 0
        after = churn(10_000)
    finally:
        tracemalloc.stop()
    assert after - before < 200_000, f"{after - before} bytes more after 10,000 pods"


def test_node_is_labelled_and_complains_once() -> None:
    api = FakeApi()
    api.put_node("node1", **{"kmesh.net/capability.old": "present", "other": "stays"})
    labels = labels_of(
        mode="compat", version="0.1.0+dirty", capabilities={"btf": "present", "a/b": "absent"}
    )
    report = NodeReport(api, node="node1", labels=labels, complaint="not enhanced: no BTF")
    report.start()
    until(lambda: api.posted, "no event")
    report.stop()
    found = api.get("/api/v1/nodes/node1")["metadata"]["labels"]
    assert found == {
        "other": "stays",
        "kmesh.net/mode": "compat",
        "kmesh.net/version": "0.1.0_dirty",
        "kmesh.net/capability.btf": "present",
    }
    (path, event) = api.posted[0]
    assert path == "/api/v1/namespaces/default/events"
    assert event["message"] == "not enhanced: no BTF"


def test_features_are_written_whole_and_removed(tmp_path: Path) -> None:
    write_features(tmp_path, {"kmesh.net/mode": "compat", "kmesh.net/capability.btf": "present"})
    text = (tmp_path / "kmesh").read_text()
    assert text == "kmesh.net/capability.btf=present\nkmesh.net/mode=compat\n"
    assert [path.name for path in tmp_path.iterdir()] == ["kmesh"]
    assert remove_features(tmp_path) == [str(tmp_path / "kmesh")]
    assert remove_features(tmp_path) == []
    with pytest.raises(KmeshError, match="cannot write features"):
        write_features(tmp_path / "none", {})
