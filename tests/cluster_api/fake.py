# SPDX-License-Identifier: Apache-2.0
"""An API server in memory: objects by path, watches that are told of every change, patches that merge."""

from __future__ import annotations

import copy
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from runtime.cluster.api import NAMESPACES, NODES, PODS, ROUTES, ApiError

Json = dict[str, Any]
_LISTS = (
    "pods", "namespaces", "nodes", "services", "endpointslices", "gateways", "httproutes",
    "authorizationpolicies",
)  # fmt: skip


def merge(target: Json, patch: Mapping[str, Any]) -> None:
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


class FakeApi:
    """Speaks `runtime.cluster.api.Api`."""

    server = "https://fake"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._version = 1
        self._kinds: dict[str, dict[str, Json]] = {}  # list path → object path → object
        self._watches: list[tuple[str, queue.Queue[Json | None]]] = []
        self._past: deque[tuple[int, str, Json]] = deque(maxlen=200)
        self.patched: list[tuple[str, Json]] = []
        self.posted: list[tuple[str, Json]] = []
        self.down = False
        self.unknown = {ROUTES}  # kinds that the server does not know
        self.forbidden: set[str] = set()
        self.gets = 0

    # What a test does.

    def put(self, kind: str, path: str, value: Json) -> None:
        with self._lock:
            self._version += 1
            value.setdefault("metadata", {})["resourceVersion"] = str(self._version)
            objects = self._kinds.setdefault(kind, {})
            event = "MODIFIED" if path in objects else "ADDED"
            objects[path] = value
            self._tell(kind, event, value)

    def remove(self, kind: str, path: str) -> None:
        with self._lock:
            self._version += 1
            value = self._kinds[kind].pop(path)
            value["metadata"]["resourceVersion"] = str(self._version)
            self._tell(kind, "DELETED", value)

    def put_pod(self, name: str, *, namespace: str = "ns", **fields: Any) -> Json:
        value = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": fields.get("uid", f"uid-{name}"),
                "labels": fields.get("labels", {}),
                "annotations": fields.get("annotations", {}),
            },
            "spec": {"nodeName": "node1", "containers": []},
            "status": {"phase": "Running", **({"podIP": fields["ip"]} if "ip" in fields else {})},
        }
        self.put(PODS, f"{NAMESPACES}/{namespace}/pods/{name}", value)
        return value

    def put_namespace(self, name: str, mode: str | None = None) -> None:
        labels = {"istio.io/dataplane-mode": mode} if mode is not None else {}
        self.put(NAMESPACES, f"{NAMESPACES}/{name}", {"metadata": {"name": name, "labels": labels}})

    def put_node(self, name: str, **labels: str) -> None:
        self.put(NODES, f"{NODES}/{name}", {"metadata": {"name": name, "labels": labels}})

    def pod(self, name: str, namespace: str = "ns") -> Json:
        return self._kinds[PODS][f"{NAMESPACES}/{namespace}/pods/{name}"]

    def end_watches(self, *, forget: bool = False) -> None:
        """Every watch ends; with `forget`, saying that its version is gone."""
        with self._lock:
            for _, events in self._watches:
                if forget:
                    events.put({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
                events.put(None)
            self._watches.clear()

    # What the runtime does.

    def is_idle(self) -> bool:
        """Whether every watch has taken everything that it was told."""
        return all(events.empty() for _, events in self._watches)

    def _tell(self, kind: str, event: str, value: Json) -> None:
        told = {"type": event, "object": copy.deepcopy(value)}
        self._past.append((self._version, kind, told))
        for path, events in self._watches:
            if path == kind:
                events.put({"type": event, "object": copy.deepcopy(value)})

    def _check(self, path: str = "") -> None:
        if self.down:
            raise ApiError("the API server does not answer")
        if path in self.unknown:
            raise ApiError(f"GET {path}: 404 page not found", status=404)
        if path in self.forbidden:
            raise ApiError(f"GET {path}: is forbidden", status=403)

    def get(self, path: str, **query: Any) -> Any:
        self._check(path)
        with self._lock:
            self.gets += 1
            for objects in self._kinds.values():
                if path in objects:
                    return copy.deepcopy(objects[path])
            if path.rpartition("/")[2] in _LISTS:
                items = copy.deepcopy(list(self._kinds.get(path, {}).values()))
                if selector := query.get("labelSelector"):
                    name, _, value = selector.partition("=")
                    items = [o for o in items if o["metadata"].get("labels", {}).get(name) == value]
                return {"items": items, "metadata": {"resourceVersion": str(self._version)}}
        raise ApiError(f"no {path}", status=404)

    def events(self, path: str, **query: Any) -> Iterator[Any]:
        self._check(path)
        events: queue.Queue[Json | None] = queue.Queue()
        with self._lock:
            since = int(query["resourceVersion"])
            for version, kind, told in self._past:
                if version > since and kind == path:
                    events.put(copy.deepcopy(told))
            self._watches.append((path, events))
        while (event := events.get()) is not None:
            yield event

    def patch(self, path: str, body: Any, *, kind: str = "merge") -> Any:
        assert kind in ("merge", "apply")
        self._check()
        with self._lock:
            self.patched.append((path, dict(body)))
            for name, objects in self._kinds.items():
                if path in objects:
                    uid = body.get("metadata", {}).get("uid")
                    value = copy.deepcopy(objects[path])
                    if uid is not None and uid != value["metadata"].get("uid"):
                        raise ApiError("another of its name", status=409)
                    merge(value, body)
                    self.put(name, path, value)
                    return value
        raise ApiError(f"no {path}", status=404)

    def post(self, path: str, body: Any) -> Any:
        self._check()
        self.posted.append((path, dict(body)))
        return body

    def delete(self, path: str, **_query: Any) -> Any:
        self._check()
        with self._lock:
            for name, objects in self._kinds.items():
                if path in objects:
                    self.remove(name, path)
                    return {}
        raise ApiError(f"no {path}", status=404)
