# SPDX-License-Identifier: Apache-2.0
"""Pods in and out of the data path, whatever order news comes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bpf.lib import BpfError
from runtime.enrol.enrolment import Enrolment
from runtime.enrol.places import Place
from runtime.enrol.pod import Pod
from runtime.model.mesh import IPAddress

Mode = str | None


class Node:
    """A node's kernel and its API server's annotations, in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inside: dict[int, Place] = {}
        self.said: dict[str, bool] = {}
        self.history: list[str] = []
        self.kept: set[int] | None = None
        self.refuse = False
        self.found: dict[frozenset[IPAddress], Path] = {}

    # The kernel.

    def enroll_pod(self, place: Place) -> None:
        if self.refuse:
            raise BpfError("no room", 7)
        self.inside[place.inode] = place
        self.history.append(f"enrolled {place.netns.name}")

    def release_pod(self, place: Place) -> None:
        del self.inside[place.inode]
        self.history.append(f"released {place.netns.name}")

    def keep_pods(self, places: Iterable[Place]) -> None:
        self.kept = {place.inode for place in places}

    # Annotations.

    def say(self, pod: Pod, *, enrolled: bool) -> None:
        if enrolled:
            assert any(place.netns.name == pod.name for place in self.inside.values()), (
                "said enabled before it was so"
            )
        self.said[pod.name] = enrolled

    def forget(self, uid: str) -> None: ...

    # Namespaces.

    def find(self, wanted: Iterable[frozenset[IPAddress]]) -> Mapping[frozenset[IPAddress], Path]:
        return {each: self.found[each] for each in wanted if each in self.found}

    def netns(self, name: str) -> Path:
        path = self.path / name
        path.touch()
        return path

    @property
    def governed(self) -> set[str]:
        return {place.netns.name for place in self.inside.values()}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return make_node(tmp_path, monkeypatch)


def make_node(path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    def place_at(netns: Path, *, cgroup: Path | None) -> Place:
        inode = netns.stat().st_ino
        return Place(netns, inode, inode, cgroup)

    monkeypatch.setattr("runtime.enrol.enrolment.place_at", place_at)
    return Node(path)


def enrolment(node: Node) -> Enrolment:
    return Enrolment(kernel=node, says=node, namespaces_of_node=node, cgroups=None)


def pod(name: str, mode: Mode = None, *, address: str = "", **more: Any) -> Pod:
    addresses = (ip_address(address),) if address else ()
    return Pod(
        uid=f"uid-{name}",
        namespace="ns",
        name=name,
        cgroup_uid=f"uid-{name}",
        mode=mode,
        addresses=addresses,
        **more,
    )


def running(node: Node, name: str, address: str, mode: Mode = None) -> Pod:
    node.found[frozenset({ip_address(address)})] = node.netns(name)
    return pod(name, mode, address=address)


def test_pods_that_were_there_before_are_enrolled(node: Node) -> None:
    made = enrolment(node)
    made.pods_listed([running(node, "a", "10.0.0.1"), running(node, "b", "10.0.0.2", "none")])
    assert node.governed == set()
    made.namespaces_listed({"ns": "kmesh"})
    assert node.governed == {"a"}
    assert node.said == {"a": True, "b": False}
    assert made.not_ready() == ""


def test_pod_labelled_in_a_namespace_without_label_is_enrolled(node: Node) -> None:
    made = enrolment(node)
    made.namespaces_listed({"ns": None})
    plain = running(node, "a", "10.0.0.1")
    made.pods_listed([plain])
    assert node.governed == set()
    made.pod_changed(running(node, "a", "10.0.0.1", "kmesh"))
    assert node.governed == {"a"}
    made.pod_changed(plain)
    assert node.governed == set()
    assert node.said["a"] is False


def test_label_of_the_namespace_moves_running_pods(node: Node) -> None:
    made = enrolment(node)
    made.pods_listed([running(node, "a", "10.0.0.1")])
    made.namespaces_listed({"ns": None, "other": "kmesh"})
    made.namespace_changed("ns", "kmesh")
    assert node.governed == {"a"}
    made.namespace_changed("ns", None)
    assert node.governed == set()


def test_plugin_enrols_before_the_watch_tells(node: Node) -> None:
    made = enrolment(node)
    made.pods_listed([])
    made.namespaces_listed({"ns": "kmesh"})
    made.heard_of(pod("a"), "ns", "kmesh")
    assert made.added("uid-a", node.netns("a")) == ""
    assert node.governed == {"a"}
    made.pod_changed(pod("a", address="10.0.0.1"))
    assert node.history == ["enrolled a"]


def test_plugin_that_came_before_anything_is_remembered(node: Node) -> None:
    made = enrolment(node)
    assert made.added("uid-a", node.netns("a")) != ""
    made.namespaces_listed({"ns": "kmesh"})
    made.pods_listed([pod("a")])
    assert node.governed == {"a"}


def test_replaced_sandbox_is_followed(node: Node) -> None:
    made = enrolment(node)
    made.namespaces_listed({"ns": "kmesh"})
    made.pods_listed([pod("a")])
    old, new = node.netns("a"), node.netns("a-again")
    made.added("uid-a", old)
    node.said.clear()
    node.say = lambda *_args, **_more: None  # type: ignore[method-assign]
    made.added("uid-a", new)
    made.deleted("uid-a", old)  # late, of the sandbox of before
    assert node.governed == {"a-again"}


def test_deleted_pod_leaks_nothing(node: Node) -> None:
    made = enrolment(node)
    made.namespaces_listed({"ns": "kmesh"})
    made.pods_listed([pod("a")])
    made.added("uid-a", node.netns("a"))
    made.deleted("uid-a", node.netns("a"))
    assert node.governed == set()
    made.pod_gone("uid-a")
    assert made.describe() == []


def test_pod_that_is_not_in_the_list_any_more_is_released(node: Node) -> None:
    made = enrolment(node)
    made.namespaces_listed({"ns": "kmesh"})
    made.pods_listed([running(node, "a", "10.0.0.1"), running(node, "b", "10.0.0.2")])
    made.pods_listed([running(node, "b", "10.0.0.2")])
    assert node.governed == {"b"}


def test_refusal_of_the_kernel_is_told_and_tried_again(node: Node) -> None:
    made = enrolment(node)
    node.refuse = True
    made.namespaces_listed({"ns": "kmesh"})
    made.pods_listed([running(node, "a", "10.0.0.1")])
    assert "no room" in made.not_ready()
    assert node.said["a"] is False
    assert "no room" in made.checked("uid-a")
    node.refuse = False
    made.retry()
    assert node.governed == {"a"}
    assert made.checked("uid-a") == ""


def test_what_an_earlier_daemon_left_goes_once_all_is_known(node: Node) -> None:
    made = enrolment(node)
    made.namespaces_listed({"ns": "kmesh"})
    before = node.kept
    made.pods_listed([running(node, "a", "10.0.0.1")])
    assert (before, node.kept) == (None, set(node.inside))


def test_pod_that_cannot_be_found_holds_that_up_only_for_a_while(node: Node) -> None:
    made = enrolment(node)
    made.namespaces_listed({"ns": "kmesh"})
    made.pods_listed([pod("a")])
    kept: list[set[int] | None] = [node.kept]
    for _ in range(10):
        made.retry()
        kept.append(node.kept)
    assert (kept[0], kept[-1]) == (None, set())
    assert made.not_ready() == "", "a pod without an address is still being set up"


def test_wrong_annotation_is_put_right(node: Node) -> None:
    made = enrolment(node)
    made.namespaces_listed({"ns": None})
    made.pods_listed([pod("a", annotation="enabled")])
    assert node.said == {"a": False}


STEPS = st.permutations(["pods", "namespaces", "label", "namespace label", "plugin", "retry"])


@given(STEPS, st.sampled_from([None, "kmesh", "none"]), st.sampled_from([None, "kmesh", "none"]))
def test_order_of_news_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], own: Mode, namespace: Mode
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        node = make_node(tmp_path_factory.mktemp("node"), patch)
        made = enrolment(node)
        heard: set[str] = set()
        for step in steps:
            heard.add(step)
            match step:
                case "pods":
                    made.pods_listed([pod("a", own if "label" in heard else None)])
                case "namespaces":
                    known = namespace if "namespace label" in heard else None
                    made.namespaces_listed({"ns": known})
                case "label":
                    made.pod_changed(pod("a", own))
                case "namespace label":
                    made.namespace_changed("ns", namespace)
                case "plugin":
                    made.added("uid-a", node.netns("a"))
                case "retry":
                    made.retry()
        wanted = own == "kmesh" or (own is None and namespace == "kmesh")
        assert node.governed == ({"a"} if wanted else set())
        assert node.said["a"] is wanted
