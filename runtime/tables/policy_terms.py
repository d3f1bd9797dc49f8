# SPDX-License-Identifier: Apache-2.0
"""A policy as an OR of terms, each of them an AND of matches.

A group asks for one match of each of its rules, so it becomes every such combination. What never
holds is left out; a term without matches holds always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TypeVar

from runtime.errors import KmeshError
from runtime.model.mesh import IPAddress
from runtime.model.policy import Action, Identity, IPNetwork, Match, Policy, Rule

MAX_TERMS = 4096
_T = TypeVar("_T")


class PolicyTooLargeError(KmeshError):
    """The combinations that a policy stands for are too many."""


@dataclass(frozen=True, slots=True)
class Term:
    """Matches that must all hold, each without its conditions on the destination's address."""

    matches: tuple[Match, ...]

    @property
    def asks_identity(self) -> bool:
        return any(match.asks_identity for match in self.matches)

    @property
    def blocks(self) -> set[IPNetwork]:
        """The blocks of source addresses that it names."""
        return {one for match in self.matches for one in match.source_ips + match.not_source_ips}

    @property
    def ports(self) -> set[int]:
        """The destination ports that it names."""
        return {
            port
            for match in self.matches
            for port in match.destination_ports + match.not_destination_ports
        }

    def admits_identity(self, who: Identity | None) -> bool:
        """Whether its conditions on the source's identity hold; None: outside the mesh."""
        return all(_identity_holds(match, who) for match in self.matches)

    def admits_source(self, inside: AbstractSet[IPNetwork]) -> bool:
        """Whether its conditions on the source's address hold for one that lies in these blocks."""
        return all(
            _among(match.source_ips, match.not_source_ips, inside.__contains__)
            for match in self.matches
        )

    def admits_port(self, port: int | None) -> bool:
        """Whether its conditions on the port hold; None: a port that no term names."""
        return all(
            _among(match.destination_ports, match.not_destination_ports, lambda one: one == port)
            for match in self.matches
        )


def _among(wanted: Sequence[_T], unwanted: Sequence[_T], holds: Callable[[_T], bool]) -> bool:
    return (not wanted or any(map(holds, wanted))) and not any(map(holds, unwanted))


def _identity_holds(match: Match, who: Identity | None) -> bool:
    namespace, principal = (who.namespace, who.principal) if who else ("", "")
    account = (who.namespace, who.service_account) if who else None
    return (
        _among(match.namespaces, match.not_namespaces, lambda one: one.holds(namespace))
        and _among(match.principals, match.not_principals, lambda one: one.holds(principal))
        and _among(
            match.service_accounts,
            match.not_service_accounts,
            lambda one: (one.namespace, one.service_account) == account,
        )
    )


def all_of(terms: Iterable[Term]) -> Term:
    """The term that holds where all of these do."""
    return Term(_merged(tuple(match for term in terms for match in term.matches)))


def terms_of(policy: Policy, destination: IPAddress) -> tuple[Term, ...]:
    """The terms by which a policy can match connections to one destination.

    Args:
        policy: the policy.
        destination: the address, which decides what is asked of it here and now.

    Raises:
        PolicyTooLargeError: there are more than MAX_TERMS of them.
    """
    groups = [[list(_possible(policy, rule, destination)) for rule in group if rule]
              for group in policy.groups]  # fmt: skip
    count = sum(prod(len(rule) for rule in group) for group in groups)
    if count > MAX_TERMS:
        raise PolicyTooLargeError(
            f"the rules of policy {policy.key} combine to {count} conditions; {MAX_TERMS} can be enforced",
            hint="split it: the rules of each `from`, `to` and `when` are multiplied",
        )
    return tuple(dict.fromkeys(Term(_merged(term)) for group in groups for term in product(*group)))


def _possible(policy: Policy, rule: Rule, destination: IPAddress) -> Iterator[Match]:
    """What can hold of a rule's matches. What cannot be read is taken to hold in a deny policy."""
    for match in rule:
        if match.empty or (match.unreadable and policy.action is Action.ALLOW):
            continue
        blocks = (match.destination_ips, match.not_destination_ips)
        if _among(*blocks, lambda block: destination in block):
            yield replace(match, destination_ips=(), not_destination_ips=(), unreadable=())


def _merged(matches: tuple[Match, ...]) -> tuple[Match, ...]:
    """Each once, and none that asks for nothing."""
    return tuple(one for one in dict.fromkeys(matches) if not one.empty)
