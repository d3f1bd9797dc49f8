# SPDX-License-Identifier: Apache-2.0
"""What of a request chooses the endpoint, in words of struct kmesh_route."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.model.http import Forward, HashKind, HashPolicy, Route
from runtime.tables.http_conditions import PSEUDO, Name, unreadable

VALUE, COOKIE, SOURCE = 1, 2, 3  # KMESH_HASH_VALUE and so on
TERMINAL = 0x10000  # KMESH_HASH_TERMINAL


def _name(policy: HashPolicy) -> Name | None:
    """Whose value is noted in the head for it; None where none is."""
    match policy.kind:
        case HashKind.HEADER:
            return None if policy.name in PSEUDO else (False, policy.name)
        case HashKind.QUERY:
            return True, policy.name
        case HashKind.COOKIE:
            return False, "cookie"
        case HashKind.SOURCE_IP:
            return None


def why_unhashed(route: Route, slots: Mapping[Name, int]) -> str | None:
    """Why a route's hash cannot be taken, or None."""
    policies = route.action.hash_policies if isinstance(route.action, Forward) else ()
    for policy in policies:
        name = _name(policy)
        if policy.kind is HashKind.COOKIE and policy.ttl is not None:
            return f"hash_policy.cookie: {policy.name} is to be made where it is missing (ttl)"
        if name is not None and name not in slots:
            return f"hash_policy: {unreadable(name) or f'{name[1]} is one name too many'}"
    return None


def hash_word(policy: HashPolicy, slots: Mapping[Name, int]) -> int:
    """Its kind, and where its value is."""
    name = _name(policy)
    last = TERMINAL if policy.terminal else 0
    if policy.kind is HashKind.SOURCE_IP:
        return SOURCE | last
    place = slots[name] if name is not None else int(PSEUDO[policy.name])
    return (COOKIE if policy.kind is HashKind.COOKIE else VALUE) | place << 8 | last
