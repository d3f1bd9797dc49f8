# SPDX-License-Identifier: Apache-2.0
"""What the filters of a port do to a request on a route."""

from __future__ import annotations

from runtime.model.http import Abort, HttpPort, RateLimit, Rbac, Route, Step


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
