# SPDX-License-Identifier: Apache-2.0
"""Who says which policy decides, for who asks; apart, as a start without HTTP imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runtime.model.mesh import IPAddress

if TYPE_CHECKING:
    from runtime.tables.http_authorization import Decision


class DecisionOf(Protocol):
    """What authorization says of a case of a port's table: `HttpPorts.decision_of`."""

    def __call__(
        self, address: IPAddress, port: int, *, table: int, case: int
    ) -> Decision | None: ...


def nothing_decided(
    address: IPAddress,  # noqa: ARG001 - whoever knows no names
    port: int,  # noqa: ARG001
    *,
    table: int,  # noqa: ARG001
    case: int,  # noqa: ARG001
) -> Decision | None:
    """Where the names of policies are not known."""
    return None
