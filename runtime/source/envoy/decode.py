# SPDX-License-Identifier: Apache-2.0
"""One resource of Envoy's four types, from its bytes to the model.

The message types are made when the first resource is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.model.http import Cluster, Endpoints, Listener, RouteTable
from runtime.source.envoy.cluster import decode_cluster
from runtime.source.envoy.endpoint import decode_endpoints
from runtime.source.envoy.listener import decode_listener
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, read, type_url
from runtime.source.envoy.route import decode_table
from runtime.source.istiod.wire import BadResourceError

Resource = Cluster | Endpoints | Listener | RouteTable
_DECODERS: dict[str, Callable[[str, Any], Resource]] = {
    CLUSTER: decode_cluster,
    ENDPOINTS: decode_endpoints,
    LISTENER: decode_listener,
    ROUTES: decode_table,
}
TYPE_URLS = {type_url(name): name for name in _DECODERS}
_MOST = 200  # characters of a reason


class RefusedError(BadResourceError):
    """A resource that has a name, and cannot be accepted."""

    def __init__(self, resource: str, reason: str) -> None:
        super().__init__(reason)
        self.resource = resource


def _name(kind: str, wire: Any) -> str:
    name = str(wire.cluster_name if kind == ENDPOINTS else wire.name)
    if not name:
        raise BadResourceError("it has no name")
    return name


def decode(kind: str, payload: bytes) -> tuple[str, Resource]:
    """A resource's name, and what it is in the model.

    Args:
        kind: the full name of its message.
        payload: the message, serialized.

    Raises:
        BadResourceError: it cannot be accepted; the message is the reason, in one line. A
            `RefusedError` where its name can be told.
    """
    wire = read(kind, payload)
    name = _name(kind, wire)
    try:
        return name, _DECODERS[kind](name, wire)
    except BadResourceError as error:
        raise RefusedError(name, str(error)) from error
    except Exception as error:  # no resource may end the stream that brings it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST]
        raise RefusedError(name, f"cannot be read ({reason})") from error
