# SPDX-License-Identifier: Apache-2.0
"""How pods are told apart: by control group where version 2 is alone, else by network namespace."""

from __future__ import annotations

import json
import sys

import pytest

from ci.cluster.parts import NODE
from tests.cluster.conftest import ASK, SHOP, Cluster

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.cluster]


def is_version_2_alone(cluster: Cluster) -> bool:
    return cluster.machine.run("stat", "-fc", "%T", "/sys/fs/cgroup").strip() == "cgroup2fs"


def namespace_of(cluster: Cluster, pod: str) -> str:
    """The file of a pod's network namespace, found by its address."""
    address = cluster.get("-n", SHOP, "pod", pod)["status"]["podIP"]
    look = f"""
        for each in /run/netns/*; do
            nsenter --net=$each ip -4 -o address | grep -q ' {address}/' && echo $each
        done
        true
    """
    return cluster.machine.run("sh", "-c", look).strip()


def ask_in(cluster: Cluster, netns: str) -> dict[str, int]:
    """What a process of the node's gets that is in a pod's network, and in none of its control groups."""
    asked = (sys.executable, "-c", ASK, cluster.address, "4")
    answers: dict[str, int] = json.loads(cluster.machine.run("nsenter", f"--net={netns}", *asked))
    return answers


def test_pods_are_told_apart_as_the_node_can(labelled: Cluster) -> None:
    pods = {pod["pod"]: pod["by"] for pod in labelled.ctl("pods") if pod["governed"]}
    wanted = {f"{SHOP}/{name}" for name in ("client", *labelled.servers())}
    assert wanted <= set(pods)
    mine = {name: pods[name] for name in wanted}
    if not is_version_2_alone(labelled):
        assert all(by.startswith("network namespace ") for by in mine.values()), mine
        return
    for name, by in mine.items():
        uid = labelled.get("-n", SHOP, "pod", name.split("/")[1])["metadata"]["uid"]
        assert by.startswith("cgroup ")
        assert by.endswith(f"/pod{uid}")
    # Who is in the pod's network but not in its control group is nobody's: there is no kube-proxy to answer it.
    netns = namespace_of(labelled, "client")
    assert not set(ask_in(labelled, netns)) & labelled.servers()
    assert set(labelled.ask(20)) == labelled.servers()
    assert labelled.get("node", NODE)["metadata"]["labels"]["kmesh.net/mode"]
