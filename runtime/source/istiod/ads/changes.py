# SPDX-License-Identifier: Apache-2.0
"""Changes of HTTP resources: the latest state of each, nothing older."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.model.http_picture import HttpChange
from runtime.source.envoy.decode import Resource
from runtime.source.istiod.ads.kinds import AdsKind
from runtime.source.istiod.changes import absent, learn, rejections
from runtime.source.update import Update

Key = tuple[str, str]  # field of an `HttpChange`, name


@dataclass(slots=True)
class KnownHttp:
    """Names of what the consumer has."""

    resources: set[Key] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


@dataclass(slots=True)
class HttpChanges:
    """New state by type and name, None where a resource is gone; `refused` as in `Changes`."""

    resources: dict[Key, Resource | None] = field(default_factory=dict)
    refused: dict[str, str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.resources or self.refused)

    def put(self, kind: AdsKind, name: str, state: Resource | None) -> None:
        self.resources[kind.field, name] = state

    def merge(self, later: HttpChanges) -> None:
        """Let later changes replace those of the same resources."""
        self.resources.update(later.resources)
        self.refused.update(later.refused)

    def forget_unknown(self, known: KnownHttp) -> None:
        """Drop removals of what the consumer never got; note what it knows after this."""
        learn(self.resources, known.resources)
        learn(self.refused, known.refused)

    def to_update(self, *, complete: bool) -> Update:
        """The same as an update, which is complete in what it says of HTTP alone."""
        fields: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for (where, name), state in self.resources.items():
            fields[where][name] = state
        changed = complete or fields
        return Update(
            http=HttpChange(complete=complete, **_mappings(fields)) if changed else None,
            rejections=rejections(self.refused),
            accepted=absent(self.refused),
        )


def _mappings(fields: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return dict(fields)
