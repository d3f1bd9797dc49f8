# SPDX-License-Identifier: Apache-2.0
"""Telling the cluster what was found out about this node: labels, and an event where less runs than could.

Labels are what schedulers, policies and people select by; the whole report is at /debug/probe.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from runtime import log
from runtime.cluster.api import NODES, Api, ApiError, namespaced

MODE_LABEL = "kmesh.net/mode"
CAPABILITY_PREFIX = "kmesh.net/capability."
VERSION_LABEL = "kmesh.net/version"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_RETRY_SECONDS = 5.0

_log = log.get("cluster")


def labels_of(*, mode: str, version: str, capabilities: Mapping[str, str]) -> dict[str, str]:
    """The labels of a node: a pure function.

    Args:
        mode: the path that serves.
        version: the daemon's.
        capabilities: the prober's verdicts by capability.
    """
    wanted = {MODE_LABEL: mode, VERSION_LABEL: re.sub(r"[^A-Za-z0-9_.-]", "_", version)}
    for name, verdict in capabilities.items():
        if _NAME.fullmatch(f"capability.{name}"):
            wanted[f"{CAPABILITY_PREFIX}{name}"] = verdict
    return wanted


class NodeReport:
    """Patches the node, and says once what is amiss, in a thread of its own until that has worked.

    Args:
        api: the API server.
        node: this node's name.
        labels: from `labels_of`.
        complaint: why the node runs less than was asked for, or than its kernel could; "" for nothing.
        namespace: where events go.
    """

    def __init__(
        self,
        api: Api,
        *,
        node: str,
        labels: Mapping[str, str],
        complaint: str,
        namespace: str = "default",
    ) -> None:
        self._api = api
        self._node = node
        self._labels = labels
        self._complaint = complaint
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node-report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Idempotent."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set() and not self._is_done():
            self._stop.wait(_RETRY_SECONDS)

    def _is_done(self) -> bool:
        """Tell what is to be told; False where that is worth another attempt."""
        try:
            self.publish()
            if self._complaint:
                self.complain()
        except ApiError as error:
            _log.warning("cannot tell the cluster about node %s: %s", self._node, error)
            return error.status in (403, 404)
        return True

    def publish(self) -> None:
        """Put the labels on the node; capabilities that are no longer known go.

        Raises:
            ApiError: the API server refuses.
        """
        node = self._api.get(f"{NODES}/{self._node}")
        there = node["metadata"].get("labels") or {}
        stale = dict.fromkeys(k for k in there if k.startswith(CAPABILITY_PREFIX))
        changes = {
            name: value
            for name, value in {**stale, **self._labels}.items()
            if there.get(name) != value
        }
        if changes:
            self._api.patch(f"{NODES}/{self._node}", {"metadata": {"labels": changes}})

    def complain(self) -> None:
        """Write an event about the node. Raises: ApiError."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "kmesh-", "namespace": self._namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": self._node},
            "reason": "KmeshDegraded",
            "message": self._complaint[:1000],
            "type": "Warning",
            "source": {"component": "kmesh", "host": self._node},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._api.post(namespaced(self._namespace, "events"), event)


def clear_labels(api: Api, node: Mapping[str, object]) -> bool:
    """Take our labels off a node; returns whether there were any. Raises: ApiError."""
    metadata = node["metadata"]
    assert isinstance(metadata, dict)
    there = metadata.get("labels") or {}
    ours = [name for name in there if name.startswith("kmesh.net/")]
    if ours:
        body = {"metadata": {"labels": dict.fromkeys(ours)}}
        api.patch(f"{NODES}/{metadata['name']}", body)
    return bool(ours)
