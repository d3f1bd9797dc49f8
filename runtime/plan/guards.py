# SPDX-License-Identifier: Apache-2.0
"""The policies that guard an endpoint, as rules that a request to it must pass.

A policy on connections alone is carried out where the endpoint is. As soon as one asks anything of requests it
is asked here, before the request is sent; and if it allows, so are all others that allow, as each of
them may be the one that lets a request in. What they ask of the endpoint itself is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from runtime.model.http_rules import (
    AllOf,
    AnyOf,
    Anything,
    Condition,
    DestinationIn,
    Not,
    PortIn,
    PrincipalIs,
    Rbac,
    RbacPolicy,
    SourceIn,
    TextKind,
    TextMatch,
)
from runtime.model.mesh import IPAddress, Workload
from runtime.model.policy import Action, Match, Policy, PolicyScope, StringKind, StringMatch

_SCHEME = "spiffe://"
_NEVER = Not(Anything())

Rules = tuple[Rbac, ...]
Guarded = tuple[Rules, tuple[str, ...]]  # what guards one endpoint, and why that cannot be decided
Guarding = frozenset[Guarded]  # the same of a cluster
NOTHING: Guarded = ((), ())


class Guards:
    """Rules by endpoint.

    Args:
        workloads: whose the endpoints are.
        policies: all there are.
    """

    def __init__(self, workloads: Mapping[str, Workload], policies: Mapping[str, Policy]) -> None:
        live = [policies[key] for key in sorted(policies)]
        self._live = [
            one for one in live if not one.dry_run and one.scope is not PolicyScope.SERVICE
        ]
        self._at: dict[IPAddress, tuple[Sequence[Policy], ...]] = {}  # each workload's
        self._doubts: dict[IPAddress, tuple[str, ...]] = {}
        judging = [one for one in self._live if one.judges_requests]
        for workload in workloads.values() if judging else ():
            # Of a mesh's workloads few are guarded by these: the others' policies are not looked for.
            if any(one.applies_to(workload) for one in judging):
                self._find(workload)

    def _find(self, workload: Workload) -> None:
        found = tuple(one for one in self._live if one.applies_to(workload))
        doubts = tuple(
            f"authorization policy {one.key}: the labels of workload {workload.name} are not known"
            for one in found
            if one.is_doubtful(workload)
        )
        for address in workload.addresses:
            self._at[address] = tuple(dict.fromkeys((*self._at.get(address, ()), found)))
            self._doubts[address] = (*self._doubts.get(address, ()), *doubts)

    def of(self, address: IPAddress, port: int) -> Guarded:
        """What requests to an endpoint must pass, and why that cannot be decided here."""
        found = self._at.get(address, ())
        if not found:
            return NOTHING
        reasons = (*why_not(chain.from_iterable(found)), *self._doubts[address])
        return rules_of_all(found, address, port), reasons


def rules_of_all(
    each: Iterable[Sequence[Policy]], address: IPAddress, port: int
) -> tuple[Rbac, ...]:
    """What requests must pass where several are at an address: all that any of them asks.

    In one filter the right that one of them gives would open the others too.
    """
    rules = chain.from_iterable(rules_of(policies, address, port) for policies in each)
    return tuple(dict.fromkeys(rules))


def why_not(policies: Iterable[Policy]) -> tuple[str, ...]:
    """Why what policies ask of requests cannot be decided here."""
    once = {policy.key: policy for policy in policies}.values()
    return tuple(
        f"authorization policy {policy.key}: {why}" for policy in once for why in _reasons(policy)
    )


def _reasons(policy: Policy) -> Iterator[str]:
    yield from policy.beyond
    if policy.rules is None and policy.needs_http:
        yield "it has conditions on HTTP, which the workload API does not tell"
    elif not policy.beyond:
        yield from (f"it cannot be told here: {name}" for name in policy.unreadable)


def rules_of(policies: Sequence[Policy], address: IPAddress, port: int) -> Rules:
    """What requests to an address and port must pass: first who denies, then who allows."""
    judging = {policy.action for policy in policies if policy.judges_requests}
    denying = [one for one in policies if one.action is Action.DENY and one.judges_requests]
    made = []
    for action, chosen in (
        (Action.DENY, denying),
        (Action.ALLOW, [one for one in policies if one.action is Action.ALLOW]),
    ):
        if action in judging:
            rules = (_here(rule, address, port) for one in chosen for rule in _rules(one))
            made.append(Rbac(action=action, policies=tuple(rules)))
    return tuple(one for one in made if one.policies or one.action is Action.ALLOW)


def _here(rule: RbacPolicy, address: IPAddress, port: int) -> RbacPolicy:
    """A rule with what it asks of the destination decided."""

    def decided(condition: Condition) -> Condition:
        match condition:
            case PortIn(first, last):
                return Anything() if first <= port <= last else _NEVER
            case DestinationIn(block):
                return Anything() if address in block else _NEVER
            case AllOf(parts):
                return AllOf(tuple(map(decided, parts)))
            case AnyOf(parts):
                return AnyOf(tuple(map(decided, parts)))
            case Not(inner):
                return Not(decided(inner))
            case _:
                return condition

    return RbacPolicy(
        name=rule.name,
        permissions=tuple(map(decided, rule.permissions)),
        principals=tuple(map(decided, rule.principals)),
    )


def _rules(policy: Policy) -> tuple[RbacPolicy, ...]:
    """A policy's rules; those on connections in the same words, where no more is known of it."""
    if policy.rules is not None:
        return policy.rules
    return tuple(
        RbacPolicy(
            name=f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{index}]",
            permissions=(Anything(),),
            principals=(AllOf(tuple(AnyOf(tuple(map(_match, rule))) for rule in group if rule)),),
        )
        for index, group in enumerate(policy.groups)
    )


def _match(match: Match) -> Condition:
    lists: tuple[tuple[Iterable[Condition], Iterable[Condition]], ...] = (
        (map(_namespace, match.namespaces), map(_namespace, match.not_namespaces)),
        (map(_principal, match.principals), map(_principal, match.not_principals)),
        (
            (_account(one.namespace, one.service_account) for one in match.service_accounts),
            (_account(one.namespace, one.service_account) for one in match.not_service_accounts),
        ),
        (map(SourceIn, match.source_ips), map(SourceIn, match.not_source_ips)),
        (map(DestinationIn, match.destination_ips), map(DestinationIn, match.not_destination_ips)),
        (map(_port, match.destination_ports), map(_port, match.not_destination_ports)),
    )
    if match.empty:
        return _NEVER
    asked: list[Condition] = []
    for wanted, unwanted in lists:
        some, none = tuple(wanted), tuple(unwanted)
        asked += [AnyOf(some)] if some else []
        asked += [Not(AnyOf(none))] if none else []
    return AllOf(tuple(asked))


def _port(number: int) -> Condition:
    return PortIn(number, number)


def _namespace(match: StringMatch) -> Condition:
    names = {
        StringKind.EXACT: re.escape(match.value),
        StringKind.PREFIX: f"{re.escape(match.value)}[^/]*",
        StringKind.SUFFIX: f"[^/]*{re.escape(match.value)}",
        StringKind.PRESENCE: "[^/]+",
    }
    return PrincipalIs(TextMatch(TextKind.REGEX, f".*/ns/{names[match.kind]}/.*"))


def _principal(match: StringMatch) -> Condition:
    match match.kind:
        case StringKind.EXACT:
            text = TextMatch(TextKind.EXACT, _SCHEME + match.value)
        case StringKind.SUFFIX:
            text = TextMatch(TextKind.REGEX, f"{_SCHEME}.*{re.escape(match.value)}")
        case _:
            text = TextMatch(TextKind.PREFIX, _SCHEME + match.value)
    return PrincipalIs(text)


def _account(namespace: str, name: str) -> Condition:
    expression = f"{_SCHEME}.+/ns/{re.escape(namespace)}/sa/{re.escape(name)}"
    return PrincipalIs(TextMatch(TextKind.REGEX, expression))
