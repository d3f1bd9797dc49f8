# SPDX-License-Identifier: Apache-2.0
"""The threads behind the enrolment: two watches and the CNI plugin's requests bring news; one thread acts."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from functools import partial
from typing import Any

from runtime import log
from runtime.cluster.api import NAMESPACES, PODS, Api, ApiError, namespaced
from runtime.cluster.follow import Changed, Event, Listed, follow
from runtime.cni.request import CniRequest
from runtime.enrol.enrolment import Enrolment, mode_of
from runtime.enrol.pod import Pod

_RETRY_SECONDS = 2.0
_CNI_SECONDS = 8.0  # less than the plugin's own patience

_log = log.get("enrol")

Work = Callable[[], object]


class Runner:
    """Drives an enrolment until stopped.

    Args:
        enrolment: what is driven; touched by the runner's own thread only.
        api: the API server.
        node: this node's name: only its pods are asked for.
        after: called after each piece of work that may have changed who is governed.
    """

    def __init__(
        self,
        enrolment: Enrolment,
        *,
        api: Api,
        node: str,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        self._enrolment = enrolment
        self._api = api
        self._node = node
        self._after = after
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._trouble: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=self._act, name="enrol", daemon=True),
            self._watcher(PODS, self._pods, fieldSelector=f"spec.nodeName={node}"),
            self._watcher(NAMESPACES, self._namespaces),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Act no more; pods stay as they are. Idempotent."""
        self._stop.set()
        self._work.put(None)
        # Watches hang in a read until the server says something: they end with the process.
        if self._threads[0].is_alive():
            self._threads[0].join(timeout=10)

    def trouble(self) -> str:
        """Why news may be old; "" when it is not."""
        return "; ".join(self._trouble.copy().values())

    # News from the API server.

    def _watcher(self, path: str, take: Callable[[Event], Work], **query: str) -> threading.Thread:
        def run() -> None:
            for event in follow(self._api, path, wait=self._stop.wait, **query):
                if isinstance(event, Listed | Changed):
                    self._trouble.pop(path, None)
                    self._work.put(take(event))
                else:
                    if path not in self._trouble:
                        _log.warning("%s (pods stay as they are meanwhile)", event.error)
                    self._trouble[path] = str(event.error)

        return threading.Thread(target=run, name=f"watch {path}", daemon=True)

    def _pods(self, event: Event) -> Work:
        if isinstance(event, Listed):
            pods = [Pod.of(one) for one in event.objects]
            return lambda: self._enrolment.pods_listed(pods)
        assert isinstance(event, Changed)
        pod = Pod.of(event.object)
        if event.gone:
            return lambda: self._enrolment.pod_gone(pod.uid)
        return lambda: self._enrolment.pod_changed(pod)

    def _namespaces(self, event: Event) -> Work:
        if isinstance(event, Listed):
            modes = dict(map(mode_of, event.objects))
            return lambda: self._enrolment.namespaces_listed(modes)
        assert isinstance(event, Changed)
        name, mode = mode_of(event.object)
        if event.gone:
            return partial(self._enrolment.namespace_gone, name)
        return partial(self._enrolment.namespace_changed, name, mode)

    # The plugin's requests, each in a thread of the socket's server.

    def on_cni(self, request: CniRequest) -> str:
        """Do what the CNI plugin asks; returns what is wrong, "" for nothing."""
        if not request.uid and request.pod:
            request = self._complete(request)
        if not request.uid:
            return ""  # no pod of Kubernetes
        match request.command:
            case "ADD":
                why = self._ask(partial(self._add, request, self._hear_of(request)))
                _log.debug("ADD %s/%s: %s", request.namespace, request.pod, why or "governed")
                return ""
            case "DEL":
                self._ask(lambda: self._enrolment.deleted(request.uid, request.netns))
                return ""
            case _:
                return str(self._ask(lambda: self._enrolment.checked(request.uid)) or "")

    def _complete(self, request: CniRequest) -> CniRequest:
        """CRI-O and containerd give the pod's uid; what does not gives its name."""
        from dataclasses import replace

        try:
            pod = self._api.get(namespaced(request.namespace, "pods", request.pod))
        except ApiError:
            return request
        return replace(request, uid=pod["metadata"]["uid"])

    def _hear_of(self, request: CniRequest) -> list[Work]:
        """What the watches have not brought yet, asked for; what cannot be got comes with them later."""
        if self._enrolment.is_known(request.uid, request.namespace):
            return []
        news: list[Work] = []
        try:
            pod = Pod.of(self._api.get(namespaced(request.namespace, "pods", request.pod)))
            name, mode = mode_of(self._api.get(f"{NAMESPACES}/{request.namespace}"))
        except ApiError as error:
            _log.warning("pod %s/%s: %s", request.namespace, request.pod, error)
            return news
        if pod.uid == request.uid:
            news.append(partial(self._enrolment.heard_of, pod, name, mode))
        return news

    def _add(self, request: CniRequest, news: list[Work]) -> str:
        assert request.netns is not None
        for each in news:
            each()
        return self._enrolment.added(request.uid, request.netns)

    def _ask(self, work: Callable[[], Any]) -> Any:
        """Have the owning thread do something, and wait for what comes of it."""
        answer: Future[Any] = Future()

        def run() -> None:
            try:
                answer.set_result(work())
            except Exception as error:  # noqa: BLE001 - it is the asking thread's
                answer.set_exception(error)

        self._work.put(run)
        try:
            return answer.result(_CNI_SECONDS)
        except FutureTimeoutError:
            return "the daemon is too busy"

    # The one thread that acts.

    def _act(self) -> None:
        due = time.monotonic() + _RETRY_SECONDS
        while not self._stop.is_set():
            work: Work | None = self._enrolment.retry
            with suppress(queue.Empty):
                work = self._work.get(timeout=max(due - time.monotonic(), 0.001))
            if work is None:
                return
            self._do(work)
            if time.monotonic() >= due:
                if work != self._enrolment.retry:
                    self._do(self._enrolment.retry)
                due = time.monotonic() + _RETRY_SECONDS

    def _do(self, work: Work) -> None:
        try:
            work()
            self._after()
        except Exception:  # noqa: BLE001 - no single pod may end the enrolment of all others
            _log.exception("a change of a pod could not be followed")

    def status(self) -> Mapping[str, Any]:
        """How many pods are governed, and what stands in the way of more."""
        return {
            "node": self._node,
            **self._enrolment.counts,
            "not_ready": self._enrolment.not_ready(),
            "trouble": self.trouble(),
        }

    def not_ready(self) -> str:
        return self._enrolment.not_ready()

    def describe(self) -> list[Mapping[str, Any]]:
        return self._enrolment.describe()
