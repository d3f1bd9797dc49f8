# SPDX-License-Identifier: Apache-2.0
"""Taking Kmesh out of a cluster: daemons end, every node is cleaned, and nothing says that it was here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runtime.cluster.api import NODES, PODS, Api, ApiError, namespaced
from runtime.cluster.follow import PAGE
from runtime.enrol.node import clear_labels
from runtime.enrol.pod import REDIRECTION
from runtime.errors import KmeshError
from runtime.ui import count

_APPS = "/apis/apps/v1"
_LOOK_SECONDS = 0.5

Say = Callable[[str], object]


class Uninstaller:
    """Does it step by step; each may be repeated.

    Args:
        api: the API server.
        namespace: where the chart is installed.
        daemons: the daemon set's name.
        cleaners: the name of the daemon set that cleans nodes.
        seconds: patience.
        say: told what is done.
    """

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        daemons: str = "kmesh",
        cleaners: str = "kmesh-cleanup",
        seconds: float = 300,
        say: Say = print,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._daemons = daemons
        self._cleaners = cleaners
        self._deadline = time.monotonic() + seconds
        self._say = say

    def run(self) -> None:
        """Take everything out.

        Raises:
            KmeshError: it was not done in time; or the API server refuses.
        """
        self._end_daemons()
        self._until_clean()
        self._forget()

    def _end_daemons(self) -> None:
        path = namespaced(self._namespace, "daemonsets", self._daemons, group=_APPS)
        try:
            self._api.delete(path, propagationPolicy="Foreground")
        except ApiError as error:
            if not error.is_missing:
                raise
        self._until(lambda: self._get(path) is None, "the daemons have not ended")
        self._say("the daemons have ended")

    def _until_clean(self) -> None:
        path = namespaced(self._namespace, "daemonsets", self._cleaners, group=_APPS)
        nodes = 0

        def is_clean() -> bool:
            nonlocal nodes
            found = self._get(path)
            if found is None:
                raise KmeshError(
                    f"there is no daemon set {self._namespace}/{self._cleaners} that cleans nodes",
                    hint="the chart makes it (helm uninstall); without Helm, apply cleanup.yaml first",
                )
            status, nodes = found.get("status") or {}, 0
            nodes = status.get("desiredNumberScheduled", 0)
            current: bool = status.get("observedGeneration") == found["metadata"].get("generation")
            return current and bool(status.get("numberReady", 0) >= nodes)

        self._until(is_clean, "not every node is clean (see the pods of kmesh-cleanup)")
        self._say(f"{count(nodes, 'node')} clean")

    def _forget(self) -> None:
        nodes = sum(clear_labels(self._api, node) for node in self._all(NODES))
        self._say(f"labels removed from {count(nodes, 'node')}")
        pods = [pod for pod in self._all(PODS) if _is_annotated(pod)]
        for pod in pods:
            metadata = pod["metadata"]
            body = {"metadata": {"annotations": {REDIRECTION: None}}}
            try:
                self._api.patch(namespaced(metadata["namespace"], "pods", metadata["name"]), body)
            except ApiError as error:
                if not error.is_missing:
                    raise
        self._say(f"annotation removed from {count(len(pods), 'pod')}")

    def _all(self, path: str) -> list[Any]:
        found: list[Any] = []
        following = ""
        while True:
            more = {"continue": following} if following else {}
            page = self._api.get(path, limit=PAGE, **more)
            found += page.get("items") or ()
            following = (page.get("metadata") or {}).get("continue") or ""
            if not following:
                return found

    def _get(self, path: str) -> Any:
        try:
            return self._api.get(path)
        except ApiError as error:
            if error.is_missing:
                return None
            raise

    def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        while not condition():
            if time.monotonic() > self._deadline:
                raise KmeshError(f"not in time: {complaint}")
            time.sleep(_LOOK_SECONDS)


def _is_annotated(pod: Any) -> bool:
    return REDIRECTION in (pod["metadata"].get("annotations") or {})
