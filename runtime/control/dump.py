# SPDX-License-Identifier: Apache-2.0
"""Everything that the source said, as plain data: every field of every resource, in a fixed order.

Resources hold no secrets: the source reads none into the model. Nothing else is dumped: no tokens,
no environment, no command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from runtime.control.view import View

Json = Mapping[str, Any]
_AS_TEXT = (IPv4Address, IPv6Address, IPv4Network, IPv6Network, Enum)


def dump(view: View) -> Json:
    """Every service, workload, policy and HTTP resource, by name, with where it is from."""
    origins = view.origins()
    http = view.http
    kinds: dict[str, dict[str, Any]] = {
        "services": dict(view.services),
        "workloads": dict(view.workloads),
        "policies": dict(view.policies),
        "listeners": dict(http.listeners) if http else {},
        "route_tables": dict(http.tables) if http else {},
        "clusters": dict(http.clusters) if http else {},
        "endpoints": dict(http.endpoints) if http else {},
    }
    return {
        kind: [
            {"resource": name, "from": origins.get(_label(kind) + name, view.source)}
            | plain(resource)
            for name, resource in sorted(resources.items())
        ]
        for kind, resources in kinds.items()
    }


_LABELS = {
    "listeners": "listener ",
    "route_tables": "route table ",
    "clusters": "cluster ",
    "endpoints": "endpoints ",
}


def _label(kind: str) -> str:
    """What stands before a name where resources of several types may have the same."""
    return _LABELS.get(kind, "")


def plain(value: Any) -> Any:
    """A model object as JSON has it: a field that the model gains is dumped without further ado.

    Raises:
        TypeError: it holds something that is no part of the model.
    """
    if isinstance(value, _AS_TEXT):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in sorted(value.items())}
    if isinstance(value, Iterable):
        items = [plain(item) for item in value]
        return sorted(items) if isinstance(value, frozenset) else items
    raise TypeError(f"{type(value).__name__} is no part of the model")
