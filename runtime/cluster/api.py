# SPDX-License-Identifier: Apache-2.0
"""What is asked of an API server, whoever carries it out: the official client, or a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from runtime.errors import KmeshError

Json = Mapping[str, Any]
PODS = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"
NODES = "/api/v1/nodes"
SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
GATEWAYS = "/apis/gateway.networking.k8s.io/v1"
ROUTES = f"{GATEWAYS}/httproutes"
POLICIES = "/apis/security.istio.io/v1/authorizationpolicies"


class ApiError(KmeshError):
    """The API server refused, or could not be reached.

    Attributes:
        status: of HTTP; 0 when nobody answered.
    """

    def __init__(self, message: str, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status

    @property
    def is_expired(self) -> bool:
        """The version asked for is no longer there (410): list again."""
        return self.status == 410

    @property
    def is_missing(self) -> bool:
        return self.status == 404


class Api(Protocol):
    """Requests to one API server. Every method may be called from any thread."""

    def get(self, path: str, **query: str | int) -> Any:
        """One object or list. Raises: ApiError."""

    def events(self, path: str, **query: str | int) -> Iterator[Any]:
        """What a watch says, until the server ends it. Raises: ApiError."""

    def patch(self, path: str, body: Json, *, kind: str = "merge") -> Any:
        """Change an object by a merge, strategic-merge or (server-side) apply patch."""

    def post(self, path: str, body: Json) -> Any:
        """Make an object. Raises: ApiError."""

    def delete(self, path: str, **query: str | int) -> Any:
        """Remove an object. Raises: ApiError."""


def namespaced(namespace: str, kind: str, name: str = "", *, group: str = "/api/v1") -> str:
    """The path of an object, or of all of a kind, in a namespace."""
    path = f"{group}/namespaces/{namespace}/{kind}"
    return f"{path}/{name}" if name else path
