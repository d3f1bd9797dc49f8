# SPDX-License-Identifier: Apache-2.0
"""Kmesh on the cluster, by its chart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ci.cluster.image import REPOSITORY, TAG
from ci.cluster.machine import TOP, Machine

NAMESPACE = "kmesh-system"
CHART = TOP / "helm" / "kmesh"
RELEASE = "kmesh"
# No registry, no Istio and no kube-proxy here.
VALUES: Mapping[str, Any] = {
    "image": {"repository": REPOSITORY, "tag": TAG, "pullPolicy": "Never"},
    "source": "kubernetes",
    "apiServer": {"host": "127.0.0.1", "port": "6443"},
}


def install(
    machine: Machine, values: Mapping[str, Any] = VALUES, *, namespace: str = NAMESPACE
) -> None:
    """Install the chart or upgrade to it, and wait until the daemon is ready.

    Raises:
        KmeshError: Helm refuses, or the daemon is not ready in time.
    """
    machine.run(
        *("helm", "upgrade", "--install", RELEASE, str(CHART), "--namespace", namespace),
        *("--create-namespace", "--values", "-"),
        stdin=json.dumps(values),
        seconds=180,
    )
    wait_ready(machine, namespace=namespace)


def wait_ready(machine: Machine, *, namespace: str = NAMESPACE) -> None:
    """Wait until every daemon is of the newest kind and ready."""
    machine.kubectl(
        *("-n", namespace, "rollout", "status", "daemonset/kmesh", "--timeout=150s"), seconds=180
    )
    machine.kubectl(
        *("-n", namespace, "wait", "--for=condition=Ready", "pod", "-l", "app=kmesh"),
        "--timeout=120s",
        seconds=150,
    )


def uninstall(machine: Machine, *, namespace: str = NAMESPACE) -> None:
    """Uninstall the chart. Raises: KmeshError: its clean-up failed."""
    machine.run("helm", "uninstall", RELEASE, "--namespace", namespace, seconds=360)
