# SPDX-License-Identifier: Apache-2.0
"""What Envoy is given for a name that it asks for and that there is nothing for: without, it would wait for ever."""

from __future__ import annotations

from typing import Any

from runtime.source.envoy.messages import ENDPOINTS, ROUTES, message_class
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryResponse
from runtime.waypoint.ledger import EDS, RDS

REASON = "x-kmesh-reason"
_NOTHING = "type.googleapis.com/kmesh.net.NothingOfThisKindIsHere"


def stand_in(kind: str, name: str, reason: str) -> bytes | None:
    """No endpoints, or a route table that answers 503 with the reason; None for other types."""
    if kind == EDS:
        endpoints: bytes = message_class(ENDPOINTS)(cluster_name=name).SerializeToString()
        return endpoints
    if kind != RDS:
        return None
    table = message_class(ROUTES)(name=name)
    host = table.virtual_hosts.add(name="nothing", domains=["*"])
    route = host.routes.add()
    route.match.prefix = "/"
    route.direct_response.status = 503
    route.direct_response.body.inline_string = reason + "\n"
    header = route.response_headers_to_add.add()
    header.header.key, header.header.value = REASON, reason
    payload: bytes = table.SerializeToString()
    return payload


def nothing(kind: str, *, nonce: str) -> Any:
    """A response for types that nothing is held of.

    An empty one reaches nobody who waits for a name, and an empty resource is kept and spoils what comes to
    use it. One that is of no type that Envoy knows is refused, and whoever waits goes on without.
    """
    response = DiscoveryResponse(version_info="nothing", type_url=kind, nonce=nonce)
    response.resources.add(type_url=_NOTHING)
    return response
