# SPDX-License-Identifier: Apache-2.0
"""What the filters of a port do to a request on a route, and the rules of those whom it leads to."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.model.http import Abort, HttpPort, RateLimit, Rbac, Route, Step


@dataclass(frozen=True, slots=True)
class Effects:
    """What is done to a request before it is forwarded, in the order of `steps`.

    Attributes:
        beyond: why its order cannot be kept here; "" where it can.
    """

    steps: tuple[Step, ...]
    abort: Abort | None
    limit: RateLimit | None
    rules: tuple[Rbac, ...]
    beyond: str = ""


def effects(
    route: Route, port: HttpPort
) -> tuple[Abort | None, RateLimit | None, tuple[Rbac, ...]]:
    """What is done to a request on this route before it is forwarded; the route's word goes first.

    A filter that the port does not have does nothing, whatever a route says to it.
    """
    abort = (route.abort or port.abort) if Step.FAULT in port.steps else None
    limit = (route.rate_limit or port.rate_limit) if Step.RATE_LIMIT in port.steps else None
    rules = port.rbac if route.rbac is None else route.rbac
    return (
        abort if abort is not None and abort.numerator else None,
        limit,
        rules if Step.RBAC in port.steps else (),
    )


def ordered_effects(route: Route, port: HttpPort) -> Effects:
    """The same with the rules of whom the route leads to, which come after all else."""
    abort, limit, rules = effects(route, port)
    steps = port.steps
    if not route.guards:
        return Effects(steps, abort, limit, rules)
    if not rules:
        others = tuple(one for one in steps if one is not Step.RBAC)
        return Effects((*others, Step.RBAC), abort, limit, route.guards)
    between = steps[steps.index(Step.RBAC) + 1 :]
    acts = (Step.FAULT in between and abort) or (Step.RATE_LIMIT in between and limit)
    why = "rbac: rules before and behind a fault or a rate limit" if acts else ""
    return Effects(steps, abort, limit, (*rules, *route.guards), why)
