# SPDX-License-Identifier: Apache-2.0
"""What files say beyond Services and slices: HTTPRoutes, policies, and recorded responses of Istiod.

Made when the first of them is seen: a directory without any costs nothing of it. Where both a
manifest and a recording tell of a service or workload, the manifest decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from typing import Any

from runtime.model.http_picture import HttpChange
from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.source.gateway_picture import ROUTE, RoutePicture
from runtime.source.kubernetes_join import Changes, Identity, Join
from runtime.source.policy_picture import PolicyPicture
from runtime.source.policy_unnamed import tells_identities, without_identities
from runtime.source.recorded import HTTP, POLICIES, SERVICES, WORKLOADS

_POLICY = "AuthorizationPolicy"


class Beyond:
    """Routes and recordings as they stand.

    Args:
        join: the services and workloads of manifests, as they stand.
    """

    def __init__(self, join: Join) -> None:
        self._join = join
        self._routes = RoutePicture()
        self._policies = PolicyPicture(alone=True)
        self._tells_identities = False
        self._recorded: defaultdict[str, dict[str, Any]] = defaultdict(dict)

    def take(self, objects: Mapping[Identity, Any], changes: Changes) -> dict[str, Policy | None]:
        """Take objects that are new, changed, or gone (None), and what changed of manifests.

        Args:
            objects: HTTPRoutes, policies and recorded resources.
            changes: of services and workloads; what recordings tell is added here.

        Returns:
            the policies that changed.
        """
        policies: dict[str, Policy | None] = {}
        for identity, state in objects.items():
            kind, namespace, name = identity
            if kind == ROUTE:
                self._routes.put(identity, state)
            elif kind == _POLICY:
                policies |= self._policies.write(f"{namespace}/{name}", state)
            elif kind == POLICIES:
                policies |= self._policies.tell(name, state)
            elif state is None:
                self._recorded[kind].pop(name, None)
            else:
                self._recorded[kind][name] = state
            if kind == SERVICES and name not in self._join.services:
                changes.services[name] = state
            elif kind == WORKLOADS and name not in self._join.workloads:
                changes.workloads[name] = state
        self._uncover(changes)
        return self._judged(policies)

    def _judged(self, changed: dict[str, Policy | None]) -> dict[str, Policy | None]:
        """Policies as they hold by what is known of who is who; all of them, where that changes."""
        before = self._tells_identities
        self._tells_identities = tells_identities(
            chain(self._join.workloads.values(), self._recorded[WORKLOADS].values())
        )
        if self._tells_identities != before:
            changed = {**changed, **self._policies.policies}
        if self._tells_identities:
            return changed
        return {key: policy and without_identities(policy) for key, policy in changed.items()}

    def _uncover(self, changes: Changes) -> None:
        """What no manifest tells any longer may still be recorded."""
        services, workloads = self._recorded[SERVICES], self._recorded[WORKLOADS]
        gone = {name for name, state in changes.services.items() if state is None}
        changes.services.update({name: services[name] for name in gone & services.keys()})
        gone = {name for name, state in changes.workloads.items() if state is None}
        changes.workloads.update({name: workloads[name] for name in gone & workloads.keys()})

    def http(self) -> HttpChange | None:
        """What changed of HTTP since the last time; the first time it is the whole picture."""
        services: dict[str, Service] = self._recorded[SERVICES] | self._join.services
        workloads: dict[str, Workload] = self._recorded[WORKLOADS] | self._join.workloads
        recorded = {kind: self._recorded[kind] for kind in HTTP.values()}
        return self._routes.change(
            services=services,
            workloads=workloads.values(),
            policies=self._policies.policies.values(),
            recorded=recorded,
        )

    def names(self, identity: Identity) -> list[str]:
        """The names by which what an object tells of is known to people."""
        kind, namespace, name = identity
        if kind == ROUTE:
            return [f"{ROUTE} {namespace}/{name}"]
        if kind == _POLICY:
            return [f"{namespace}/{name}"]
        label = {"clusters": "cluster ", "listeners": "listener ", "tables": "route table "}
        return [label.get(kind, "endpoints " if kind == "endpoints" else "") + name]
