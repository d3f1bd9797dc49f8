# SPDX-License-Identifier: Apache-2.0
"""`istio.security.Authorization` to the model's policy.

Where a resource says more than this version understands, the door must not open: an unknown
condition of a match is kept by name as unreadable (runtime/model/policy.py says what that does),
and anything unknown around it makes the whole policy unacceptable.
"""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from runtime.model.policy import (
    Action,
    Group,
    IPNetwork,
    Match,
    Policy,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from runtime.source.istiod.proto.security_pb2 import Authorization
from runtime.source.istiod.wire import BadResourceError, ip_block, parse, port_number

_SCOPES = (PolicyScope.GLOBAL, PolicyScope.NAMESPACE, PolicyScope.WORKLOAD_SELECTOR)
_ACTIONS = tuple(Action)
_STRINGS = ("namespaces", "not_namespaces", "principals", "not_principals")
_ACCOUNTS = ("service_accounts", "not_service_accounts")
_BLOCKS = ("source_ips", "not_source_ips", "destination_ips", "not_destination_ips")
_PORTS = ("destination_ports", "not_destination_ports")


def decode_policy(name: str, payload: bytes) -> Policy:
    """Turn one resource into the model.

    Args:
        name: the resource's name; what is inside must agree with it.
        payload: an `istio.security.Authorization`, serialized.

    Raises:
        BadResourceError: it cannot be accepted.
    """
    wire = parse(Authorization, payload)
    key = f"{wire.namespace}/{wire.name}"
    if key != name or not wire.name:
        raise BadResourceError(f"it is the policy {key!r}, which is not its name")
    _refuse_unknown(wire, where="the policy")
    if not 0 <= wire.scope < len(_SCOPES):
        raise BadResourceError(f"its scope {wire.scope} is not known")
    if not 0 <= wire.action < len(_ACTIONS):
        raise BadResourceError(f"its action {wire.action} is not known")
    return Policy(
        name=wire.name,
        namespace=intern(wire.namespace),
        scope=_SCOPES[wire.scope],
        action=_ACTIONS[wire.action],
        groups=tuple(_group(group) for group in wire.groups),
        dry_run=wire.dry_run,
        extensions=tuple(extension.name for extension in wire.extensions),
    )


def _refuse_unknown(wire: Any, *, where: str) -> None:
    for number in _unknown_fields(wire):
        raise BadResourceError(f"{where} has a field {number} that is not known")


def _unknown_fields(wire: Any) -> list[int]:
    unknown = UnknownFieldSet(wire)
    return [unknown[index].field_number for index in range(len(unknown))]


def _group(wire: Any) -> Group:
    _refuse_unknown(wire, where="a group")
    for rule in wire.rules:
        _refuse_unknown(rule, where="a rule")
    return tuple(tuple(_match(match) for match in rule.matches) for rule in wire.rules)


def _match(wire: Any) -> Match:
    fields: dict[str, tuple[Any, ...]] = {}
    unreadable = [f"field {number}" for number in _unknown_fields(wire)]
    unreadable += [f"extension {extension.name}" for extension in wire.extensions]
    for name in _STRINGS:
        values = getattr(wire, name)
        fields[name] = tuple(_string(value) for value in values if value.WhichOneof("match_type"))
        if len(fields[name]) != len(values):
            unreadable.append(name)
    for name in _ACCOUNTS:
        fields[name] = tuple(
            ServiceAccountMatch(value.namespace, value.serviceAccount)
            for value in getattr(wire, name)
        )
    for name in _BLOCKS:
        fields[name] = tuple(_blocks(getattr(wire, name), where=name))
    for name in _PORTS:
        fields[name] = tuple(port_number(p, where=name, least=0) for p in getattr(wire, name))
    return Match(**fields, unreadable=tuple(unreadable))


def _string(wire: Any) -> StringMatch:
    kind = wire.WhichOneof("match_type")
    if kind == "presence":
        return StringMatch(StringKind.PRESENCE)
    return StringMatch(StringKind[kind.upper()], getattr(wire, kind))


def _blocks(wire: Iterable[Any], *, where: str) -> Iterable[IPNetwork]:
    return [ip_block(block.address, block.length, where=where) for block in wire]
