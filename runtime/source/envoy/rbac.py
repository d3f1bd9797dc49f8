# SPDX-License-Identifier: Apache-2.0
"""Authorization over HTTP, as Istio has Envoy enforce it.

A rule that cannot be expressed must not open a door: the filter that holds it is told as a whole, and the
requests that it governs are the waypoint's.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from runtime.model.http import (
    AllOf,
    AnyOf,
    Anything,
    Condition,
    DestinationIn,
    Not,
    PathIs,
    PortIn,
    PrincipalIs,
    Rbac,
    RbacPolicy,
    SourceIn,
)
from runtime.model.policy import Action, IPNetwork
from runtime.source.envoy.match import decode_header, decode_text
from runtime.source.envoy.whitelist import Fields
from runtime.source.istiod.wire import BadResourceError

_ACTIONS = (Action.ALLOW, Action.DENY)
_PEER = "io.istio.peer_principal"  # where Istio keeps the client's identity
_DEEPEST = 20


class _BeyondError(Exception):
    """A rule that cannot be expressed; the message says what of it."""


def decode_rbac(wire: Any) -> tuple[Rbac | None, list[str]]:
    """The rules of an `RBAC` filter; None where it has none, or they cannot be expressed (told)."""
    fields = Fields(wire, "rbac.")
    rules = fields.take("rules")
    # Shadow rules decide nothing; the rest is about statistics.
    fields.ignore(
        "shadow_rules",
        "shadow_rules_stat_prefix",
        "shadow_matcher",
        "rules_stat_prefix",
        "track_per_rule_stats",
    )
    told = fields.rest()
    if rules is None or told:
        return None, told
    try:
        return _rules(rules), []
    except _BeyondError as error:
        return None, [f"rbac.{error}"]


def _rules(wire: Any) -> Rbac | None:
    fields = Fields(wire, "rules.")
    action = fields.take("action")
    fields.ignore("audit_logging_options")
    policies = [_policy(name, policy) for name, policy in sorted(fields.take("policies").items())]
    _nothing_left(fields)
    if action == len(_ACTIONS):  # LOG: it decides nothing
        return None
    if not 0 <= action < len(_ACTIONS):
        raise _BeyondError(f"rules.action: {action}")
    return Rbac(action=_ACTIONS[action], policies=tuple(policies))


def _policy(name: str, wire: Any) -> RbacPolicy:
    fields = Fields(wire, f"policy {name}: ")
    permissions = [_permission(each) for each in fields.take("permissions")]
    principals = [_principal(each) for each in fields.take("principals")]
    _nothing_left(fields)
    return RbacPolicy(name=name, permissions=tuple(permissions), principals=tuple(principals))


def _nothing_left(fields: Fields) -> None:
    for told in fields.rest():
        raise _BeyondError(told)


def _permission(wire: Any, depth: int = 0) -> Condition:
    kind, value = _rule(wire, depth)
    match kind:
        case "and_rules" | "or_rules" | "not_rule":
            return _compound(kind, value, _permission, depth)
        case "destination_ip":
            return DestinationIn(_block(value))
        case "destination_port":
            return PortIn(value, value)
        case "destination_port_range":
            return PortIn(value.start, value.end - 1)
        case _:
            return _either("permissions", kind, value)


def _principal(wire: Any, depth: int = 0) -> Condition:
    kind, value = _rule(wire, depth)
    match kind:
        case "and_ids" | "or_ids" | "not_id":
            return _compound(kind, value, _principal, depth)
        case "source_ip" | "direct_remote_ip" | "remote_ip":
            # The path sees clients themselves: no proxy stands before it.
            return SourceIn(_block(value))
        case "authenticated":
            return _authenticated(value)
        case "filter_state":
            return _filter_state(value)
        case _:
            return _either("principals", kind, value)


def _either(where: str, kind: str, value: Any) -> Condition:
    """What may stand among permissions and principals alike."""
    match kind:
        case "any":
            return Anything() if value else Not(Anything())
        case "header":
            return _header(value)
        case "url_path":
            return _url_path(value)
        case _:
            raise _BeyondError(f"{where}.{kind}: not known here")


def _rule(wire: Any, depth: int) -> tuple[str, Any]:
    if depth > _DEEPEST:
        raise _BeyondError(f"rules: nested more than {_DEEPEST} deep")
    fields = Fields(wire, "rules: ")
    kind = wire.WhichOneof("rule" if wire.DESCRIPTOR.name == "Permission" else "identifier")
    value = fields.take(kind) if kind else None
    _nothing_left(fields)
    return kind or "nothing", value


def _compound(
    kind: str, value: Any, decode: Callable[[Any, int], Condition], depth: int
) -> Condition:
    if kind.startswith("not"):
        return Not(decode(value, depth + 1))
    parts = tuple(decode(each, depth + 1) for each in getattr(value, kind.partition("_")[2]))
    return AllOf(parts) if kind.startswith("and") else AnyOf(parts)


def _header(wire: Any) -> Condition:
    told: list[str] = []
    made = decode_header(wire, "header", told)
    if made is None:
        raise _BeyondError(told[0])
    return made


def _url_path(wire: Any) -> Condition:
    fields = Fields(wire, "url_path.")
    path = fields.take("path")
    _nothing_left(fields)
    told: list[str] = []
    text = decode_text(path, "url_path", told) if path is not None else None
    if text is None:
        raise _BeyondError(told[0] if told else "url_path: no path is told")
    return PathIs(text)


def _authenticated(wire: Any) -> Condition:
    name = wire.principal_name if wire.HasField("principal_name") else None
    told: list[str] = []
    text = decode_text(name, "authenticated", told) if name is not None else None
    if text is None:
        raise _BeyondError(told[0] if told else "authenticated: by anybody")
    return PrincipalIs(text)


def _filter_state(wire: Any) -> Condition:
    fields = Fields(wire, "filter_state.")
    key, matcher = fields.take("key"), fields.take("string_match")
    _nothing_left(fields)
    told: list[str] = []
    text = decode_text(matcher, "filter_state", told) if matcher is not None else None
    if key != _PEER or text is None:
        raise _BeyondError(told[0] if told else f"filter_state: {key}")
    return PrincipalIs(text)


def _block(wire: Any) -> IPNetwork:
    length = wire.prefix_len.value if wire.HasField("prefix_len") else 0
    try:
        return ip_network(f"{wire.address_prefix}/{length}", strict=False)
    except ValueError:
        told = f"{wire.address_prefix!r}/{length} is no block of addresses"
        raise BadResourceError(told) from None
