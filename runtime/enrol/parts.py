# SPDX-License-Identifier: Apache-2.0
"""What the enrolment needs of others: to take pods in, to say so, and to find where pods are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from runtime.enrol.places import Place
from runtime.enrol.pod import Pod
from runtime.model.mesh import IPAddress


class Kernel(Protocol):
    """Takes pods in and lets them go."""

    def enroll_pod(self, place: Place) -> object: ...
    def release_pod(self, place: Place) -> object: ...
    def keep_pods(self, places: Iterable[Place]) -> object:
        """Let go of every pod that an earlier daemon took in, but these."""


class Says(Protocol):
    """Tells the world about a pod."""

    def say(self, pod: Pod, *, enrolled: bool) -> object: ...
    def forget(self, uid: str) -> object: ...


class Finds(Protocol):
    def find(
        self, wanted: Iterable[frozenset[IPAddress]]
    ) -> Mapping[frozenset[IPAddress], Path]: ...


class FindsCgroups(Protocol):
    def find(self, uid: str) -> Path | None: ...
