# SPDX-License-Identifier: Apache-2.0
"""What a request may be asked: its path, headers and query, and who sends it.

These are the leaves of routes and of HTTP authorization. `runtime.model.http` says what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runtime.model.policy import Action, IPNetwork


class PathKind(StrEnum):
    """How a path is compared; a separated prefix ends at a "/" or at the path's end."""

    EXACT = "EXACT"
    PREFIX = "PREFIX"
    SEPARATED_PREFIX = "SEPARATED_PREFIX"
    REGEX = "REGEX"


class TextKind(StrEnum):
    EXACT = "EXACT"
    PREFIX = "PREFIX"
    SUFFIX = "SUFFIX"
    CONTAINS = "CONTAINS"
    REGEX = "REGEX"
    PRESENT = "PRESENT"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A regular expression never ignores case."""

    kind: PathKind
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class TextMatch:
    kind: TextKind
    value: str = ""
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A header by its lower-case name, or `:method`, `:authority`, `:scheme`, `:path` (with query)."""

    name: str
    text: TextMatch
    invert: bool = False
    missing_as_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """The first query parameter of that name, as it stands in the URL: nothing is unescaped."""

    name: str
    text: TextMatch


@dataclass(frozen=True, slots=True)
class Anything:
    """Always holds."""


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


@dataclass(frozen=True, slots=True)
class PathIs:
    """The path without its query."""

    text: TextMatch


@dataclass(frozen=True, slots=True)
class DestinationIn:
    block: IPNetwork


@dataclass(frozen=True, slots=True)
class PortIn:
    """A port of the destination from `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SourceIn:
    block: IPNetwork


@dataclass(frozen=True, slots=True)
class PrincipalIs:
    """The client's identity, with its scheme ("spiffe://..."); no identity matches nothing."""

    text: TextMatch


Condition = (
    Anything
    | AllOf
    | AnyOf
    | Not
    | HeaderMatch
    | PathIs
    | DestinationIn
    | PortIn
    | SourceIn
    | PrincipalIs
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RbacPolicy:
    """Matches a request when a permission and a principal do."""

    name: str
    permissions: tuple[Condition, ...]
    principals: tuple[Condition, ...]

    @property
    def asks_request(self) -> bool:
        """Something is asked of the request, not of its connection alone."""
        return any(map(_asks_request, (*self.permissions, *self.principals)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rbac:
    """DENY refuses (403) what a policy matches, ALLOW what no policy matches."""

    action: Action
    policies: tuple[RbacPolicy, ...] = ()


def _asks_request(condition: Condition) -> bool:
    match condition:
        case AllOf(parts) | AnyOf(parts):
            return any(map(_asks_request, parts))
        case Not(inner):
            return _asks_request(inner)
        case _:
            return isinstance(condition, HeaderMatch | PathIs)
