# SPDX-License-Identifier: Apache-2.0
"""The pods of this node, in and out of the data path as their labels say, in whatever order news comes.

State is only what was last heard: pods, modes of namespaces, and network namespaces that the CNI plugin
told. Each piece of news makes the pods that it concerns be looked at again, all of them in the same way,
so that it does not matter which piece came first. One thread owns it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runtime import log
from runtime.enrol.places import Place, place_at
from runtime.enrol.pod import MODE, Decision, Pod, decide
from runtime.errors import KmeshError
from runtime.model.mesh import IPAddress

_PATIENCE = 10  # retries, until a pod that cannot be found no longer holds up the clearing away

_log = log.get("enrol")


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


@dataclass(slots=True)
class _Known:
    """A pod, and where it is: as told by the CNI plugin, and as enrolled."""

    pod: Pod
    told: Path | None = None
    place: Place | None = None
    trouble: str = ""


@dataclass(slots=True)
class Enrolment:
    """The state; every method is for the owning thread, but `describe`.

    Attributes:
        kernel: the data path.
        says: keeps annotations.
        namespaces_of_node: finds network namespaces by addresses.
        cgroups: finds control groups; None where pods are told apart by namespace.
    """

    kernel: Kernel
    says: Says
    namespaces_of_node: Finds
    cgroups: FindsCgroups | None
    _pods: dict[str, _Known] = field(default_factory=dict)
    _modes: dict[str, str | None] = field(default_factory=dict)
    _told: dict[str, Path] = field(default_factory=dict)  # of pods not heard of yet, by uid
    _pods_heard: bool = False
    _namespaces_heard: bool = False
    _settled: bool = False
    _retries: int = 0

    # News.

    def pods_listed(self, pods: Iterable[Pod]) -> None:
        """All pods of this node."""
        there = {pod.uid: pod for pod in pods}
        for uid in self._pods.keys() - there.keys():
            self._drop(uid)
        self._pods_heard = True
        self._take(there.values())
        self._look_at(there)

    def pod_changed(self, pod: Pod) -> None:
        self._take([pod])
        self._look_at([pod.uid])

    def pod_gone(self, uid: str) -> None:
        self._drop(uid)

    def namespaces_listed(self, modes: Mapping[str, str | None]) -> None:
        """The label of every namespace."""
        before, self._modes = self._modes, dict(modes)
        first, self._namespaces_heard = not self._namespaces_heard, True
        changed = {
            name for name in before.keys() | modes.keys() if before.get(name) != modes.get(name)
        }
        self._look_at(
            uid for uid, known in self._pods.items() if first or known.pod.namespace in changed
        )

    def namespace_changed(self, name: str, mode: str | None) -> None:
        if name in self._modes and self._modes[name] == mode:
            return
        self._modes[name] = mode
        self._look_at(uid for uid, known in self._pods.items() if known.pod.namespace == name)

    def namespace_gone(self, name: str) -> None:
        """Its pods go one by one, each with news of its own."""
        self._modes.pop(name, None)

    def retry(self) -> None:
        """Try again what is wanted and not so; called now and then."""
        self._retries += 1
        self._look_at(
            uid for uid, known in self._pods.items() if (known.place is None) == self._wants(known)
        )

    # The CNI plugin.

    def is_known(self, uid: str, namespace: str) -> bool:
        """Whether it can be decided on a pod without asking the API server."""
        return uid in self._pods and namespace in self._modes

    def heard_of(self, pod: Pod, namespace: str, mode: str | None) -> None:
        """A pod and its namespace, asked for before the watches told: what those told goes before."""
        self._modes.setdefault(namespace, mode)
        if pod.uid not in self._pods:
            self._take([pod])

    def added(self, uid: str, netns: Path) -> str:
        """A pod's network is there, and none of its processes yet; returns why it is not governed."""
        known = self._pods.get(uid)
        if known is None:
            self._told[uid] = netns
            return "nothing is known of the pod yet"
        if known.place is not None and not _is_same(known.place, netns):
            self._release(known)  # of a sandbox that was replaced
        known.told = netns
        self._look_at([uid])
        return "" if known.place else known.trouble or self._decision(known).reason

    def deleted(self, uid: str, netns: Path | None) -> None:
        """A pod's network goes. Of a sandbox that was replaced meanwhile: nothing to do."""
        self._told.pop(uid, None)
        known = self._pods.get(uid)
        if known is None:
            return
        if netns is None or known.told in (None, netns):
            known.told = None
            self._release(known)

    def checked(self, uid: str) -> str:
        """Why a pod that is to be governed is not; "" when all is as it should be."""
        known = self._pods.get(uid)
        if known is None or not self._wants(known) or known.place is not None:
            return ""
        return known.trouble or "it is not enrolled"

    # What is told.

    def not_ready(self) -> str:
        """Why not every running pod is as its labels say; "" when each is."""
        if not (self._pods_heard and self._namespaces_heard):
            return "waiting for the API server to tell which pods are to be governed"
        for known in self._pods.copy().values():
            if known.pod.addresses and known.place is None and self._wants(known):
                return f"pod {known.pod} is not governed: {known.trouble or 'not looked at yet'}"
        return ""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many pods there are here, and how many of them are governed."""
        pods = self._pods.copy().values()
        return {"pods": len(pods), "governed": sum(one.place is not None for one in pods)}

    def describe(self) -> list[Mapping[str, Any]]:
        """Every pod of this node: governed or not, and why. May be called from any thread."""
        return [
            {
                "pod": str(known.pod),
                "governed": known.place is not None,
                "reason": self._decision(known).reason,
                "trouble": known.trouble,
                "by": _by(known.place),
                "addresses": [str(address) for address in known.pod.addresses],
            }
            for _, known in sorted(self._pods.copy().items(), key=lambda item: str(item[1].pod))
        ]

    # How it is done.

    def _take(self, pods: Iterable[Pod]) -> None:
        for pod in pods:
            known = self._pods.setdefault(pod.uid, _Known(pod))
            moved = known.pod.addresses != pod.addresses and known.pod.addresses
            known.pod = pod
            known.told = self._told.pop(pod.uid, known.told)
            if moved and known.told is None and known.place is not None:
                self._release(known)  # of a sandbox that was replaced while nobody told

    def _drop(self, uid: str) -> None:
        self._told.pop(uid, None)
        known = self._pods.pop(uid, None)
        if known is not None:
            self._let_go(known)
            self.says.forget(uid)

    def _decision(self, known: _Known) -> Decision:
        return decide(known.pod, namespace_mode=self._modes.get(known.pod.namespace))

    def _wants(self, known: _Known) -> bool:
        return self._decision(known).governed

    def _look_at(self, uids: Iterable[str]) -> None:
        """Bring pods into the state that is wanted of them."""
        found = [self._pods[uid] for uid in list(uids)]
        # Before a namespace is heard of, a pod without a label of its own is left as it is.
        ready = [one for one in found if one.pod.mode is not None or self._can_tell(one)]
        wanted = [one for one in ready if self._wants(one)]
        self._enroll([one for one in wanted if one.place is None])
        for one in ready:
            if not self._wants(one) and one.place is not None:
                self._release(one)
            self.says.say(one.pod, enrolled=one.place is not None)
        self._settle()

    def _can_tell(self, known: _Known) -> bool:
        return bool(known.pod.left_alone or known.pod.over) or known.pod.namespace in self._modes

    def _enroll(self, pods: list[_Known]) -> None:
        netns = self._find(pods)
        for known in pods:
            known.trouble = ""
            try:
                if known.pod.uid not in netns:
                    known.trouble = "its network namespace is not found yet"
                    continue
                cgroup = self.cgroups.find(known.pod.cgroup_uid) if self.cgroups else None
                place = place_at(netns[known.pod.uid], cgroup=cgroup)
                self.kernel.enroll_pod(place)
            except (KmeshError, OSError) as error:
                known.trouble = str(error)
                _log.error("pod %s is not governed: %s", known.pod, error)
            else:
                known.place = place
                _log.info("pod %s is governed (%s)", known.pod, self._decision(known).reason)

    def _find(self, pods: list[_Known]) -> dict[str, Path]:
        """Namespaces by uid: those that were told of and are still there; else by addresses."""
        found = {one.pod.uid: one.told for one in pods if one.told and one.told.exists()}
        left = {
            frozenset(one.pod.addresses): one.pod.uid
            for one in pods
            if one.pod.uid not in found and one.pod.addresses
        }
        if left:
            by_address = self.namespaces_of_node.find(left)
            found |= {left[addresses]: path for addresses, path in by_address.items()}
        return found

    def _release(self, known: _Known) -> None:
        if known.place is not None:
            _log.info("pod %s is no longer governed (%s)", known.pod, self._decision(known).reason)
        self._let_go(known)

    def _let_go(self, known: _Known) -> None:
        place, known.place = known.place, None
        if place is None:
            return
        try:
            self.kernel.release_pod(place)
        except (KmeshError, OSError) as error:
            known.place = place
            known.trouble = f"it cannot be released: {error}"
            _log.error("pod %s stays governed: %s", known.pod, error)

    def _settle(self) -> None:
        """Once all was heard, nobody is governed but who is wanted: also of an earlier daemon's."""
        if self._settled or not (self._pods_heard and self._namespaces_heard):
            return
        waiting = any(self._wants(one) and one.place is None for one in self._pods.values())
        if waiting and self._retries < _PATIENCE:  # it may be among what the earlier daemon left
            return
        self.kernel.keep_pods(one.place for one in self._pods.values() if one.place)
        self._settled = True


def mode_of(namespace: Mapping[str, Any]) -> tuple[str, str | None]:
    """The name and the label `istio.io/dataplane-mode` of a core/v1 Namespace."""
    metadata = namespace["metadata"]
    return metadata["name"], (metadata.get("labels") or {}).get(MODE)


def _is_same(place: Place, netns: Path) -> bool:
    try:
        return netns.stat().st_ino == place.inode
    except OSError:
        return False


def _by(place: Place | None) -> str:
    if place is None:
        return ""
    return f"cgroup {place.cgroup}" if place.cgroup else f"network namespace {place.cookie}"
