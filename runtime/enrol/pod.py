# SPDX-License-Identifier: Apache-2.0
"""A pod, as far as it matters whether and where it is governed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from runtime.model.mesh import IPAddress

MODE = "istio.io/dataplane-mode"
REDIRECTION = "kmesh.net/redirection"
_SIDECAR_STATUS = "sidecar.istio.io/status"
_SIDECAR = "istio-proxy"
_MANAGED = "gateway.istio.io/managed"  # Istio's label on the pods of its gateways and waypoints
_GATEWAY_CLASS = "gateway.networking.k8s.io/gateway-class-name"
_CONFIG_HASH = "kubernetes.io/config.hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What is kept of a pod's object: little, as every pod of the node is kept.

    Attributes:
        cgroup_uid: the uid that the kubelet names its control group after (of a static pod it is
            not the object's).
        mode: its label `istio.io/dataplane-mode`; None without.
        left_alone: why it is none of ours, whatever labels say; "" when nothing speaks against it.
        over: all its containers ended for good, or the object is gone.
        annotation: what `kmesh.net/redirection` says; None without.
    """

    uid: str
    namespace: str
    name: str
    cgroup_uid: str
    addresses: tuple[IPAddress, ...] = ()
    mode: str | None = None
    left_alone: str = ""
    over: bool = False
    annotation: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> Pod:
        """Read a core/v1 Pod."""
        metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        return cls(
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            cgroup_uid=annotations.get(_CONFIG_HASH) or metadata["uid"],
            addresses=_addresses(status),
            mode=labels.get(MODE),
            left_alone=_left_alone(spec, labels, annotations),
            over=status.get("phase") in ("Succeeded", "Failed"),
            annotation=annotations.get(REDIRECTION),
        )


def _addresses(status: Mapping[str, Any]) -> tuple[IPAddress, ...]:
    listed = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    return tuple(ip_address(text) for text in listed if text)


def _left_alone(
    spec: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str]
) -> str:
    if spec.get("hostNetwork"):
        return "it shares the node's network"
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    if _SIDECAR_STATUS in annotations or any(one.get("name") == _SIDECAR for one in containers):
        return "it has a sidecar"
    if _MANAGED in labels or _GATEWAY_CLASS in labels:
        return "it is a waypoint or a gateway"
    return ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a pod is to be governed, and why."""

    governed: bool
    reason: str


def decide(pod: Pod, *, namespace_mode: str | None) -> Decision:
    """Decide by labels: the pod's own goes before its namespace's. A pure function.

    Args:
        pod: the pod.
        namespace_mode: the label `istio.io/dataplane-mode` of its namespace; None without.
    """
    if pod.over:
        return Decision(False, "it is over")
    if pod.left_alone:
        return Decision(False, pod.left_alone)
    if pod.mode is not None:
        return Decision(pod.mode == "kmesh", f"its label {MODE}={pod.mode}")
    if namespace_mode is not None:
        return Decision(namespace_mode == "kmesh", f"its namespace's label {MODE}={namespace_mode}")
    return Decision(False, f"no label {MODE}")
