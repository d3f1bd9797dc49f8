# SPDX-License-Identifier: Apache-2.0
"""The four resource types: how each is asked for, and what people call it."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, type_url


@dataclass(frozen=True, slots=True)
class AdsKind:
    """A resource type.

    Attributes:
        message: the full name of its message.
        label: stands before a resource's name where people read it.
        field: of an `HttpChange`, where it goes.
        wildcard: all there are are asked for, and a response holds all; otherwise names are, and it
            holds what changed.
    """

    message: str
    label: str
    field: str
    wildcard: bool

    @property
    def type_url(self) -> str:
        return type_url(self.message)


CLUSTERS = AdsKind(CLUSTER, "cluster", "clusters", wildcard=True)
ENDPOINT_SETS = AdsKind(ENDPOINTS, "endpoints", "endpoints", wildcard=False)
LISTENERS = AdsKind(LISTENER, "listener", "listeners", wildcard=True)
TABLES = AdsKind(ROUTES, "route table", "tables", wildcard=False)
