# SPDX-License-Identifier: Apache-2.0
"""Policies of a source that cannot say who is who.

Nobody has an identity there, so a rule that asks for one would fail for everybody: DENY would let all
through, and so would ALLOW by what somebody is not. Such a condition is one that cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from runtime.model.mesh import NetworkMode, Workload
from runtime.model.policy import Group, Match, Policy

UNNAMED = "identities of clients, of which the source tells none"


def tells_identities(workloads: Iterable[Workload]) -> bool:
    """Whether it is known who any of these is. In the node's own network nobody is told apart."""
    return any(
        one.service_account and one.network_mode is not NetworkMode.HOST_NETWORK
        for one in workloads
    )


def without_identities(policy: Policy) -> Policy:
    """A policy whose conditions on identities cannot be read: in doubt it refuses."""
    if not any(one.asks_identity for one in _matches((*policy.groups, *policy.written))):
        return policy
    return replace(policy, groups=_unread(policy.groups), written=_unread(policy.written))


def _matches(groups: Iterable[Group]) -> Iterable[Match]:
    return (match for group in groups for rule in group for match in rule)


def _unread(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    return tuple(tuple(tuple(map(_blind, rule)) for rule in group) for group in groups)


def _blind(match: Match) -> Match:
    if not match.asks_identity:
        return match
    return replace(
        match,
        namespaces=(), not_namespaces=(), principals=(), not_principals=(),
        service_accounts=(), not_service_accounts=(),
        unreadable=(*match.unreadable, UNNAMED),
    )  # fmt: skip
