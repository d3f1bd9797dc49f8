# SPDX-License-Identifier: Apache-2.0
"""The two resource types that are subscribed to, and where in the changes each resource goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.source.istiod.changes import Changes
from runtime.source.istiod.decode_mesh import MeshDecoder
from runtime.source.istiod.decode_policy import decode_policy
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE

Decode = Callable[[str, bytes], Service | Workload | Policy]


class Kind(Protocol):
    """How one resource type is decoded and filed.

    `label` stands before a resource's name where people read it.
    """

    type_url: str
    label: str

    def decoder(self) -> Decode:
        """A decoder for one response."""
        ...

    def put(self, changes: Changes, name: str, resource: Service | Workload | Policy) -> None: ...

    def remove(self, changes: Changes, name: str) -> None: ...


class AddressKind:
    """Services and workloads share a type; names of services are kept, to tell removals apart."""

    type_url = ADDRESS_TYPE
    label = "address"

    def __init__(self) -> None:
        self.services: set[str] = set()

    def decoder(self) -> Decode:
        return MeshDecoder().decode

    def put(self, changes: Changes, name: str, resource: Service | Workload | Policy) -> None:
        if isinstance(resource, Service):
            self.services.add(name)
            changes.services[name] = resource
        elif isinstance(resource, Workload):
            changes.workloads[name] = resource

    def remove(self, changes: Changes, name: str) -> None:
        if name in self.services:
            self.services.discard(name)
            changes.services[name] = None
        else:
            changes.workloads[name] = None


class AuthorizationKind:
    type_url = AUTHORIZATION_TYPE
    label = "policy"

    def decoder(self) -> Decode:
        return decode_policy

    def put(self, changes: Changes, name: str, resource: Service | Workload | Policy) -> None:
        if isinstance(resource, Policy):
            changes.policies[name] = resource

    def remove(self, changes: Changes, name: str) -> None:
        changes.policies[name] = None
