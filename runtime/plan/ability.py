# SPDX-License-Identifier: Apache-2.0
"""What the path can do on this node, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from runtime.model.http import RouteMatch
from runtime.tables.http_numbers import SLOTS
from runtime.tables.http_ports import MOST_HASHES


class Feature(StrEnum):
    """Something that a route or its clusters may ask of the path."""

    ABORT = "abort faults"
    BREAKERS = "circuit breakers"
    DIRECT_RESPONSE = "direct responses"
    HASH = "consistent hashing"
    IDENTITY = "identities of clients"
    LOCALITIES = "weighted localities"
    OUTLIERS = "outlier detection"
    PRIORITIES = "endpoint priorities"
    RATE_LIMIT = "local rate limits"
    RBAC = "authorization over HTTP"
    REDIRECT = "redirects"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much fits; what is over goes to the waypoint.

    Attributes:
        routes: of a port, over all its virtual hosts.
        virtual_hosts: of a port.
        names: different headers and query parameters that the routes of a port ask for, together.
        hashes: hash policies of a route.
        clusters: of a route.
        body: bytes of a direct response.
    """

    routes: int = 65_536
    virtual_hosts: int = 16_384
    names: int = SLOTS
    hashes: int = MOST_HASHES
    clusters: int = 256
    body: int = 4096


def _any_match(_match: RouteMatch) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What the path can do here.

    Attributes:
        serves: the enhanced path runs.
        why_not: one line, where it does not.
        lacks: features that are not there, with the reason.
        cannot_match: why a match cannot be compiled; "" where it can.
    """

    serves: bool = True
    why_not: str = ""
    lacks: Mapping[Feature, str] = field(default_factory=dict)
    cannot_match: Callable[[RouteMatch], str] = _any_match
    limits: Limits = field(default_factory=Limits)


# What the enhanced path leaves to a waypoint.
LACKS: Mapping[Feature, str] = MappingProxyType({})
LIMITS = Limits(clusters=16)


def ability(why_not: str = "", *, nameless: str = "") -> Ability:
    """What the enhanced path of this version can do.

    Args:
        why_not: why it does not run; "" where it does.
        nameless: why it is not known who the workloads of this node are; "" where it is.
    """
    lacks = {**LACKS, Feature.IDENTITY: nameless} if nameless else LACKS
    return Ability(serves=not why_not, why_not=why_not, lacks=lacks, limits=LIMITS)
