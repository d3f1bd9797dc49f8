# SPDX-License-Identifier: Apache-2.0
"""Authorization at L4: who may open a connection to whom, and the reference of what that means.

The semantics are those of Istio's workload API. A policy matches a connection when any of its
groups does; a group when all its rules do; a rule when any of its matches does; a match when every
field that is set does. Two cases are Istio's convention and easily got wrong:

- A group without rules and a rule without matches hold always: this is how "everyone" is written.
- A match **without fields never holds**. Istiod sends it for a condition that is about HTTP alone
  (methods, paths), which is the waypoint's to decide (istio/istio #61126).

What a newer Istiod may send and this version cannot read must not open a door: such a condition
is taken to fail in an allow policy, and to hold in a deny policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, TypeVar

from runtime.model.mesh import IPAddress, Workload

if TYPE_CHECKING:  # they are made of what is here
    from runtime.model.http_rules import RbacPolicy

IPNetwork = IPv4Network | IPv6Network
Labels = tuple[tuple[str, str], ...]
ROOT_NAMESPACE = "istio-system"  # policies there hold in every namespace
_T = TypeVar("_T")


class Action(StrEnum):
    ALLOW = "ALLOW"
    DENY = "DENY"


class PolicyScope(StrEnum):
    """To which workloads a policy applies: all, those of its namespace, those that name it or that it selects.

    One for services applies to requests to them, and to no workload.
    """

    GLOBAL = "GLOBAL"
    NAMESPACE = "NAMESPACE"
    WORKLOAD_SELECTOR = "WORKLOAD_SELECTOR"
    SERVICE = "SERVICE"


class StringKind(StrEnum):
    EXACT = "EXACT"
    PREFIX = "PREFIX"
    SUFFIX = "SUFFIX"
    PRESENCE = "PRESENCE"


@dataclass(frozen=True, slots=True)
class StringMatch:
    kind: StringKind
    value: str = ""

    def holds(self, text: str) -> bool:
        """Whether it matches; an absent attribute is the empty string."""
        match self.kind:
            case StringKind.EXACT:
                return text == self.value
            case StringKind.PREFIX:
                return text.startswith(self.value)
            case StringKind.SUFFIX:
                return text.endswith(self.value)
            case StringKind.PRESENCE:
                return text != ""


@dataclass(frozen=True, slots=True)
class ServiceAccountMatch:
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a workload is, in every mesh of its trust domain."""

    trust_domain: str
    namespace: str
    service_account: str

    @property
    def principal(self) -> str:
        """As policies write it: the SPIFFE id without its scheme."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What L4 knows of a connection at the server: `identity` is None for a peer outside the mesh."""

    source: IPAddress
    destination: IPAddress
    destination_port: int
    identity: Identity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Conditions that must hold together; `unreadable` names those that this version cannot read."""

    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()
    source_ips: tuple[IPNetwork, ...] = ()
    not_source_ips: tuple[IPNetwork, ...] = ()
    destination_ips: tuple[IPNetwork, ...] = ()
    not_destination_ips: tuple[IPNetwork, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing that L4 could decide: the condition was about HTTP."""
        return self == _EMPTY

    @property
    def asks_identity(self) -> bool:
        """Whether it depends on who the client is."""
        return bool(
            self.namespaces
            or self.not_namespaces
            or self.principals
            or self.not_principals
            or self.service_accounts
            or self.not_service_accounts
        )

    def holds(self, connection: Connection, *, action: Action) -> bool:
        """Whether every field that is set matches."""
        if self.empty or (self.unreadable and action is Action.ALLOW):
            return False
        return self._identity_holds(connection.identity) and self._addresses_hold(connection)

    def _identity_holds(self, identity: Identity | None) -> bool:
        namespace = identity.namespace if identity else ""
        principal = identity.principal if identity else ""

        def is_account(account: ServiceAccountMatch) -> bool:
            wanted = (account.namespace, account.service_account)
            return identity is not None and wanted == (namespace, identity.service_account)

        return (
            _among(self.namespaces, self.not_namespaces, lambda m: m.holds(namespace))
            and _among(self.principals, self.not_principals, lambda m: m.holds(principal))
            and _among(self.service_accounts, self.not_service_accounts, is_account)
        )

    def _addresses_hold(self, connection: Connection) -> bool:
        source, target = connection.source, connection.destination
        ports = (self.destination_ports, self.not_destination_ports)
        return (
            _among(self.source_ips, self.not_source_ips, lambda block: source in block)
            and _among(self.destination_ips, self.not_destination_ips, lambda b: target in b)
            and _among(*ports, lambda port: port == connection.destination_port)
        )


_EMPTY = Match()
Rule = tuple[Match, ...]
Group = tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An authorization policy; `key` is its resource name.

    With `dry_run` it decides nothing: what it would have decided is reported.

    Attributes:
        rules: what its author asks of requests, connections included; None where that is not known.
        beyond: what of it cannot be decided here, in words; then requests that it guards are the waypoint's.
        selector: labels of the workloads that it applies to, where its author's word is known.
        everywhere: it selects workloads in every namespace.
        services: keys of those whose requests it is for.
        gateways: it is for gateways or waypoints, or a class of them, which carry it out.
        written: what its author's rules ask of connections; in place of what they ask of requests stands a match
            without fields.
    """

    name: str
    namespace: str
    scope: PolicyScope = PolicyScope.WORKLOAD_SELECTOR
    action: Action = Action.ALLOW
    groups: tuple[Group, ...] = ()
    dry_run: bool = False
    extensions: tuple[str, ...] = ()
    rules: tuple[RbacPolicy, ...] | None = None
    beyond: tuple[str, ...] = ()
    selector: Labels = ()
    everywhere: bool = False
    services: tuple[str, ...] = ()
    gateways: bool = False
    written: tuple[Group, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def needs_http(self) -> bool:
        """Part of it cannot be decided at L4 and is the waypoint's."""
        return any(match.empty for match in self._all_matches())

    @property
    def judges_requests(self) -> bool:
        """Whom it lets in cannot be told from the connection alone, or not here."""
        if self.needs_http or self.beyond or self.services:
            return True
        return any(rule.asks_request for rule in self.rules or ())

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Names of the conditions that this version cannot read, each once."""
        return tuple(sorted({name for match in self._all_matches() for name in match.unreadable}))

    def _all_matches(self) -> Iterable[Match]:
        return (match for group in self.groups for rule in group for match in rule)

    def matches(self, connection: Connection) -> bool:
        """Whether any group matches, in the sense of the module's text."""
        return any(
            all(
                not rule or any(match.holds(connection, action=self.action) for match in rule)
                for rule in group
            )
            for group in self.groups
        )

    def applies_to(self, workload: Workload) -> bool:
        """Whether it governs connections to this workload."""
        match self.scope:
            case PolicyScope.GLOBAL:
                return True
            case PolicyScope.NAMESPACE:
                return workload.namespace == self.namespace
            case PolicyScope.WORKLOAD_SELECTOR:
                return self.key in workload.authorization_policies or self._may_select(workload)
            case PolicyScope.SERVICE:
                return False

    def _may_select(self, workload: Workload) -> bool:
        """Whether it selects a workload, as far as that can be told: in doubt it does."""
        if not self.selector or not (self.everywhere or workload.namespace == self.namespace):
            return False
        labels = dict(workload.labels)
        found = [labels.get(name) for name, _ in self.selector]
        missing = None in found and workload.all_labels
        return not missing and all(
            each in (None, value) for each, (_, value) in zip(found, self.selector, strict=True)
        )

    def is_doubtful(self, workload: Workload) -> bool:
        """It applies to a workload because it cannot be told that it does not."""
        if self.scope is not PolicyScope.WORKLOAD_SELECTOR or workload.all_labels:
            return False
        named = self.key in workload.authorization_policies
        labels = {name for name, _ in workload.labels}
        unknown = any(name not in labels for name, _ in self.selector)
        return not named and unknown and self._may_select(workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict on a connection.

    Attributes:
        allowed: whether it may be opened.
        policy: the key of the policy that decided, None when none did.
        reason: one line.
        dry_run: keys of the dry-run policies that match it.
    """

    allowed: bool
    policy: str | None
    reason: str
    dry_run: tuple[str, ...] = ()


def identity_of(workload: Workload) -> Identity | None:
    """A workload's identity, None for one without a service account: it is outside the mesh."""
    if not workload.service_account:
        return None
    domain = workload.trust_domain or "cluster.local"
    return Identity(domain, workload.namespace, workload.service_account)


def decide(policies: Sequence[Policy], connection: Connection) -> Decision:
    """What the policies that apply to the destination say: deny first, then allow.

    Without an allow policy everything that is not denied is allowed; with one or more, only what
    one of them matches. Source: https://istio.io/latest/docs/concepts/security/#implicit-enablement
    """
    matching = [policy for policy in policies if policy.matches(connection)]
    dry_run = tuple(policy.key for policy in matching if policy.dry_run)
    live = [policy for policy in matching if not policy.dry_run]
    for policy in live:
        if policy.action is Action.DENY:
            reason = f"denied by {policy.key}"
            return Decision(allowed=False, policy=policy.key, reason=reason, dry_run=dry_run)
    if live:
        key = live[0].key
        return Decision(allowed=True, policy=key, reason=f"allowed by {key}", dry_run=dry_run)
    if any(policy.action is Action.ALLOW and not policy.dry_run for policy in policies):
        reason = "no allow policy matches"
        return Decision(allowed=False, policy=None, reason=reason, dry_run=dry_run)
    return Decision(allowed=True, policy=None, reason="no policy forbids it", dry_run=dry_run)


def _among(wanted: Sequence[_T], unwanted: Sequence[_T], holds: Callable[[_T], bool]) -> bool:
    if wanted and not any(map(holds, wanted)):
        return False
    return not any(map(holds, unwanted))
