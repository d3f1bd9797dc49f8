# SPDX-License-Identifier: Apache-2.0
"""Uninstalled, nothing is left: no program, map, file, label or annotation. The last of the cluster's tests."""

from __future__ import annotations

import json

import pytest

from ci.cluster import kmesh
from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.cluster]


def everything(cluster: Cluster) -> str:
    """What there is of Kmesh on the node, one thing on a line."""
    look = """
        find /run/kmesh /opt/cni/bin/kmesh-cni /opt/cni/bin/.kmesh* -mindepth 0 2>/dev/null | grep -v '^/run/kmesh$'
        find /sys/fs/bpf -mindepth 1 ! -name '*.debug'
        ls -d /sys/fs/cgroup/kmesh-gate /sys/fs/cgroup/unified/kmesh-gate 2>/dev/null
        pgrep -x kmesh-gate
        grep -l kmesh-cni /etc/cni/net.d/*
        true
    """
    return cluster.machine.run("sh", "-c", look)


def objects(cluster: Cluster) -> list[str]:
    """Objects of the chart that the API server has."""
    kinds = "daemonset,job,configmap,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding"
    found = cluster.kubectl("get", kinds, "-A", "-o", "name")
    return [line for line in found.split() if "kmesh" in line]


def test_uninstall_leaves_nothing(labelled: Cluster) -> None:
    pods = ("client", *labelled.servers())
    assert "kmesh" in everything(labelled)
    kmesh.uninstall(labelled.machine)
    try:
        assert everything(labelled) == ""
        labels = labelled.get("node", "node1")["metadata"]["labels"]
        assert not [name for name in labels if name.startswith("kmesh.net/")]
        assert {labelled.annotation(pod) for pod in pods} == {None}
        assert objects(labelled) == []
        assert not set(labelled.ask(2)) & labelled.servers(), "somebody still balances"
        conflist = json.loads(labelled.machine.run("cat", "/etc/cni/net.d/10-bridge.conflist"))
        assert [plugin["type"] for plugin in conflist["plugins"]] == ["bridge", "portmap"]
    finally:
        kmesh.install(labelled.machine)
    for pod in pods:
        labelled.until_annotated(pod, "enabled")
