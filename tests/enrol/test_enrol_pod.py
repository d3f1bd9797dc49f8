# SPDX-License-Identifier: Apache-2.0
"""Who is to be governed, by labels alone."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from runtime.enrol.pod import Pod, decide


def read(**changes: Any) -> Pod:
    """A running pod, with some fields other than usual."""
    document: dict[str, Any] = {
        "metadata": {"uid": "u", "namespace": "ns", "name": "a", **changes.get("metadata", {})},
        "spec": {"containers": [{"name": "app"}], **changes.get("spec", {})},
        "status": {"phase": "Running", "podIP": "10.0.0.1", **changes.get("status", {})},
    }
    return Pod.of(document)


def labelled(mode: str) -> dict[str, Any]:
    return {"labels": {"istio.io/dataplane-mode": mode}}


@pytest.mark.parametrize(
    ("pod", "namespace", "governed"),
    [
        (None, None, False),
        (None, "kmesh", True),
        ("kmesh", None, True),
        ("kmesh", "none", True),
        ("none", "kmesh", False),
        ("ambient", "kmesh", False),
        (None, "ambient", False),
        ("", "kmesh", False),
    ],
)
def test_pods_label_goes_before_its_namespaces(
    pod: str | None, namespace: str | None, governed: Any
) -> None:
    made = read() if pod is None else read(metadata=labelled(pod))
    assert decide(made, namespace_mode=namespace).governed is governed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spec": {"hostNetwork": True}}, "network"),
        ({"spec": {"containers": [{"name": "istio-proxy"}]}}, "sidecar"),
        ({"spec": {"initContainers": [{"name": "istio-proxy"}]}}, "sidecar"),
        ({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}}, "sidecar"),
        ({"metadata": {"labels": {"gateway.istio.io/managed": "istio.io-mesh-controller"}}}, "way"),
        ({"status": {"phase": "Succeeded"}}, "over"),
    ],
)
def test_some_pods_are_left_alone_whatever_labels_say(changes: Any, reason: str) -> None:
    decision = decide(read(**changes), namespace_mode="kmesh")
    assert not decision.governed
    assert reason in decision.reason


def test_both_addresses_of_a_dual_stack_pod_are_read() -> None:
    pod = read(status={"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})
    assert pod.addresses == (ip_address("10.0.0.1"), ip_address("fd00::1"))


def test_static_pods_cgroup_has_another_uid() -> None:
    pod = read(metadata={"annotations": {"kubernetes.io/config.hash": "abc"}})
    assert pod.cgroup_uid == "abc"


def test_pod_that_has_only_been_created_can_be_read() -> None:
    pod = Pod.of({"metadata": {"uid": "u", "namespace": "ns", "name": "a"}})
    assert pod.addresses == ()
