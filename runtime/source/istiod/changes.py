# SPDX-License-Identifier: Apache-2.0
"""Changes of services, workloads and policies: the latest state of each resource, nothing older."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.source.update import Rejection, Update

_K = TypeVar("_K")
_T = TypeVar("_T")


@dataclass(slots=True)
class Known:
    """Names of what the consumer has."""

    services: set[str] = field(default_factory=set)
    workloads: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Changes:
    """New state by resource name; None where a resource is gone.

    `refused` holds the reason for each resource that could not be accepted, None for one that was
    refused earlier and no longer is.
    """

    services: dict[str, Service | None] = field(default_factory=dict)
    workloads: dict[str, Workload | None] = field(default_factory=dict)
    policies: dict[str, Policy | None] = field(default_factory=dict)
    refused: dict[str, str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.services or self.workloads or self.policies or self.refused)

    def merge(self, later: Changes) -> None:
        """Let later changes replace those of the same resources."""
        self.services.update(later.services)
        self.workloads.update(later.workloads)
        self.policies.update(later.policies)
        self.refused.update(later.refused)

    def forget_unknown(self, known: Known) -> None:
        """Drop removals of what the consumer never got; note what it knows after this."""
        learn(self.services, known.services)
        learn(self.workloads, known.workloads)
        learn(self.policies, known.policies)
        learn(self.refused, known.refused)

    def to_update(self, *, complete: bool) -> Update:
        """The same as an update; a complete one needs no removals."""
        return Update(
            services=present(self.services),
            workloads=present(self.workloads),
            policies=present(self.policies),
            removed_services=() if complete else absent(self.services),
            removed_workloads=() if complete else absent(self.workloads),
            removed_policies=() if complete else absent(self.policies),
            rejections=rejections(self.refused),
            accepted=absent(self.refused),
            complete=complete,
        )


def rejections(refused: Mapping[str, str | None]) -> tuple[Rejection, ...]:
    """What is refused now, with the reason."""
    return tuple(Rejection(resource=name, reason=why) for name, why in refused.items() if why)


def present(states: Mapping[str, _T | None]) -> tuple[_T, ...]:
    """What is there."""
    return tuple([state for state in states.values() if state is not None])


def absent(states: Mapping[_K, object]) -> tuple[_K, ...]:
    """The names of what is gone."""
    return tuple([name for name, state in states.items() if state is None])


def learn(states: dict[_K, Any], known: set[_K]) -> None:
    """Drop removals of what is not known; note what is known after this."""
    for name in absent(states):
        if name in known:
            known.discard(name)
        else:
            del states[name]
    known.update([name for name, state in states.items() if state is not None])
