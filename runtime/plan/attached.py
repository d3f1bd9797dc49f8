# SPDX-License-Identifier: Apache-2.0
"""Policies that are attached to services: requests to them are judged before they are routed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from runtime.model.http import HttpPort, RouteTable, Step
from runtime.model.mesh import IPAddress, Service
from runtime.model.policy import Policy
from runtime.plan.guards import rules_of_all, why_not


class Attached:
    """Policies by the service that they are attached to.

    Args:
        services: by key.
        policies: by key.
    """

    def __init__(self, services: Mapping[str, Service], policies: Mapping[str, Policy]) -> None:
        self._of: defaultdict[str, list[Policy]] = defaultdict(list)
        for _, policy in sorted(policies.items()):
            for key in policy.services if not policy.dry_run else ():
                if key in services:
                    self._of[key].append(policy)
        self._services = {key: services[key] for key in self._of}

    def guarded(self, port: HttpPort, table: RouteTable | None) -> HttpPort:
        """A port with the rules of the service that is there."""
        found = self._at(port.address, port.port)
        if not found:
            return port
        every = tuple(chain.from_iterable(found))
        reasons = why_not(every)
        if port.address is None:
            keys = ", ".join(dict.fromkeys(one.key for one in every))
            reasons = (f"authorization policy {keys}: its service is one of many on this port",)
        hosts = table.virtual_hosts if table else ()
        if any(route.rbac is not None for host in hosts for route in host.routes):
            reasons = (
                *reasons,
                f"authorization policy {every[0].key}: routes have rules of their own",
            )
        if reasons or port.address is None:
            return replace(port, beyond=(*port.beyond, *reasons))
        rules = rules_of_all(found, port.address, port.port)
        others = tuple(step for step in port.steps if step is not Step.RBAC)
        if Step.RBAC in port.steps:
            rules = (*rules, *port.rbac)
        return replace(port, rbac=rules, steps=(Step.RBAC, *others))

    def _at(self, address: IPAddress | None, port: int) -> list[list[Policy]]:
        """The policies of each service at an address and port; None: at any address."""
        found: list[list[Policy]] = []
        for key, service in self._services.items():
            here = address is None or any(each.address == address for each in service.addresses)
            if here and any(each.service_port == port for each in service.ports):
                found.append(self._of[key])
        return found
