# SPDX-License-Identifier: Apache-2.0
"""Saying on pods what is so: the annotation follows the kernel, never the other way round."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from runtime import log
from runtime.cluster.api import Api, ApiError, namespaced
from runtime.enrol.pod import REDIRECTION, Pod

ENABLED = "enabled"
_RETRY_SECONDS = 2.0
_FINAL = (404, 409, 422)  # the pod is gone, or another of its name is there

_log = log.get("enrol")


@dataclass(frozen=True, slots=True)
class _Wanted:
    pod: Pod
    value: str | None


class Annotator:
    """Patches pods one after another in a thread of its own; the last word on a pod counts.

    Args:
        api: the API server.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._wanted: dict[str, _Wanted] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="annotate", daemon=True)
        self._thread.start()

    def say(self, pod: Pod, *, enrolled: bool) -> None:
        """Have a pod's annotation say whether it is enrolled."""
        value = ENABLED if enrolled else None
        with self._changed:
            if pod.annotation == value and pod.uid not in self._wanted:
                return
            self._wanted[pod.uid] = _Wanted(pod, value)
            self._changed.notify()

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        with self._changed:
            self._wanted.pop(uid, None)

    def stop(self) -> None:
        """Say no more. Idempotent."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (wanted := self._next()) is not None:
            done = self._patch(wanted)
            with self._changed:
                if done and self._wanted.get(wanted.pod.uid) is wanted:
                    del self._wanted[wanted.pod.uid]
                elif not done and not self._stopped:
                    self._changed.wait(_RETRY_SECONDS)

    def _next(self) -> _Wanted | None:
        with self._changed:
            self._changed.wait_for(_either(lambda: self._stopped, lambda: bool(self._wanted)))
            return None if self._stopped else next(iter(self._wanted.values()))

    def _patch(self, wanted: _Wanted) -> bool:
        """The uid in the patch is a condition: a namesake of the pod is not touched."""
        pod = wanted.pod
        body = {"metadata": {"uid": pod.uid, "annotations": {REDIRECTION: wanted.value}}}
        try:
            self._api.patch(namespaced(pod.namespace, "pods", pod.name), body)
        except ApiError as error:
            if error.status not in _FINAL:
                _log.warning("cannot say on pod %s that it is %s: %s", pod, wanted.value, error)
                return False
        return True


def _either(*conditions: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: any(condition() for condition in conditions)
