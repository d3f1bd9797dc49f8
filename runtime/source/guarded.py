# SPDX-License-Identifier: Apache-2.0
"""Services whose requests policies judge: they are HTTP, whether or not there is any route for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy, PolicyScope


def guarded_services(
    policies: Iterable[Policy], *, services: Mapping[str, Service], workloads: Iterable[Workload]
) -> frozenset[str]:
    """Keys of the services that have a policy on requests, or some workload that has one.

    Args:
        policies: all there are.
        services: all there are, by key.
        workloads: all there are.
    """
    judging = [one for one in policies if one.judges_requests and not one.dry_run]
    found = {key for one in judging for key in one.services}
    by_workload = [one for one in judging if one.scope is not PolicyScope.SERVICE]
    for workload in workloads if by_workload else ():
        if not found.issuperset(workload.services) and any(
            one.applies_to(workload) for one in by_workload
        ):
            found.update(workload.services)
    return frozenset(found & services.keys())
