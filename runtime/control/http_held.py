# SPDX-License-Identifier: Apache-2.0
"""A route table as it is in the kernel, and whether the rules that it was made with still hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.control.http_standing import Standing
from runtime.kernel.http_ports import Written
from runtime.model.http import Step
from runtime.plan.guards import Guarding
from runtime.plan.kernel_table import KernelTable
from runtime.plan.planned import PlannedPort


@dataclass(frozen=True, slots=True)
class Held:
    """A table in the kernel, and what it was made of."""

    planned: PlannedPort
    table: KernelTable
    by_gate: frozenset[str]  # clusters among whose endpoints the kernel cannot choose
    written: Written
    standing: Standing
    guarding: Mapping[str, Guarding]  # what guarded the endpoints that it leads to

    def has_other_rules(
        self, planned: PlannedPort, table: KernelTable, guarding: Mapping[str, Guarding]
    ) -> bool:
        """Whether requests must pass other rules by now."""
        if self.table is table:
            return False
        return bool(self.guarded_otherwise(guarding)) or _rules(self.planned) != _rules(planned)

    def guarded_otherwise(self, guarding: Mapping[str, Guarding]) -> set[str]:
        """The clusters that it leads to whose endpoints are guarded otherwise by now."""
        if not (self.guarding or guarding):
            return set()
        return {
            name for name in self.table.clusters if self.guarding.get(name) != guarding.get(name)
        }


def _rules(planned: PlannedPort) -> tuple[object, ...]:
    """The rules of a port and of its routes themselves, not of whom these lead to."""
    routes = (each.route for host in planned.hosts for each in host.routes)
    own = frozenset(route.rbac for route in routes if route.rbac is not None)
    return planned.port.rbac if Step.RBAC in planned.port.steps else (), own
