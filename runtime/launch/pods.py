# SPDX-License-Identifier: Apache-2.0
"""A pod in the data path, and its policies with it: guarded before it is reached, let go after it left."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from runtime.control.authorization import Authorization
from runtime.enrol.places import Place
from runtime.launch.http import Http
from runtime.launch.managed import Managed


class Pods:
    """What the enrolment drives; implements its `Kernel`.

    Args:
        managed: who is governed.
        authorization: whom policies guard, if there is any.
        http: listens where pods are, on the enhanced path.
        lock: of the data path.
    """

    def __init__(
        self,
        managed: Managed,
        authorization: Authorization | None,
        http: Http | None,
        *,
        lock: threading.Lock,
    ) -> None:
        self._http = http
        self._managed = managed
        self._authorization = authorization
        self._lock = lock

    def enroll_pod(self, place: Place) -> None:
        """Raises: KmeshError: the kernel refuses, or the gate."""
        if self._http is not None:  # first: what has routes is reached by the gate, or not at all
            self._http.follow([place.netns])
        self._managed.enroll_pod(place)
        if self._authorization is not None:
            with self._lock:
                self._authorization.follow()

    def release_pod(self, place: Place) -> None:
        """Raises: KmeshError: the kernel refuses."""
        self._managed.release_pod(place)
        if self._authorization is not None:
            with self._lock:
                self._authorization.leave(place.inode)

    def keep_pods(self, places: Iterable[Place]) -> None:
        """Raises: KmeshError: the kernel refuses."""
        self._managed.keep_pods(places)
