# SPDX-License-Identifier: Apache-2.0
"""Waypoints as Istio knows them: Gateways of the class istio-waypoint, and who uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.cluster.api import GATEWAYS, NAMESPACES, Api, namespaced

CLASS = "istio-waypoint"
USE = "istio.io/use-waypoint"
FOR = "istio.io/waypoint-for"
TRAFFIC = ("service", "workload", "all", "none")

Json = Mapping[str, Any]


def gateway(name: str, namespace: str, *, traffic: str = "", revision: str = "") -> dict[str, Any]:
    """The Gateway that `istioctl waypoint generate` makes.

    Args:
        name: of the waypoint.
        namespace: where it is.
        traffic: for which kind of traffic it is, one of TRAFFIC; "" leaves that to Istio (service).
        revision: of Istio, where there are several.
    """
    labels = {FOR: traffic} if traffic else {}
    if revision:
        labels["istio.io/rev"] = revision
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace} | ({"labels": labels} if labels else {}),
        "spec": {
            "gatewayClassName": CLASS,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


def apply(api: Api, wanted: Json) -> None:
    """Make a waypoint, or change it. Raises: ApiError."""
    api.patch(
        _path(wanted["metadata"]["namespace"], wanted["metadata"]["name"]), wanted, kind="apply"
    )


def enroll_namespace(api: Api, namespace: str, name: str | None) -> None:
    """Have a namespace use a waypoint, or (None) none. Raises: ApiError."""
    api.patch(f"{NAMESPACES}/{namespace}", {"metadata": {"labels": {USE: name}}})


def find(api: Api, namespace: str | None) -> list[Json]:
    """The waypoints of a namespace, or of all. Raises: ApiError."""
    path = f"{GATEWAYS}/gateways" if namespace is None else _path(namespace)
    found = [one for one in api.get(path)["items"] if one["spec"].get("gatewayClassName") == CLASS]
    return sorted(found, key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"]))


def delete(api: Api, namespace: str, name: str) -> None:
    """Remove a waypoint. Raises: ApiError."""
    api.delete(_path(namespace, name))


def describe(waypoint: Json) -> dict[str, Any]:
    """A waypoint's state, ready for JSON."""
    metadata, status = waypoint["metadata"], waypoint.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    programmed = conditions.get("Programmed") or {}
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "for": (metadata.get("labels") or {}).get(FOR) or "service",
        "programmed": programmed.get("status") == "True",
        "reason": programmed.get("message") or programmed.get("reason") or "Istio says nothing yet",
        "addresses": [each["value"] for each in status.get("addresses") or ()],
    }


def _path(namespace: str, name: str = "") -> str:
    return namespaced(namespace, "gateways", name, group=GATEWAYS)
