# SPDX-License-Identifier: Apache-2.0
"""Envoy's `RouteConfiguration` to the model's route table.

Istiod sends a whole table for each change of it. Routes that were decoded before, in the same
surroundings, are the same objects again: a change of one in ten thousand costs little, here and further on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.model.http import (
    Action,
    Forward,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    VirtualHost,
)
from runtime.source.envoy.action import decode_direct, decode_forward, decode_redirect
from runtime.source.envoy.filters import decode_route_filters
from runtime.source.envoy.match import decode_match
from runtime.source.envoy.whitelist import Fields
from runtime.source.istiod.wire import BadResourceError

_Around = tuple[bytes, tuple[tuple[str, str, bytes], ...], tuple[str, ...]]
_EVERYTHING = RouteMatch(PathMatch(PathKind.PREFIX, ""))
_NOWHERE = Forward(())
_MOST_KEPT = 65_536
_kept: dict[tuple[bytes, _Around], Route] = {}


@dataclass(frozen=True, slots=True)
class _Inherited:
    """What a virtual host or table says for all the routes in it."""

    retry: Any = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()

    def around(self) -> _Around:
        """The same as a key."""
        retry = b"" if self.retry is None else self.retry.SerializeToString(deterministic=True)
        filters = ((n, each.type_url, each.value) for n, each in sorted(self.filters.items()))
        return retry, tuple(filters), self.beyond


def decode_table(name: str, wire: Any) -> RouteTable:
    """Turn a `RouteConfiguration` into the model.

    Args:
        name: what it is to be called.
        wire: the message.

    Raises:
        BadResourceError: it cannot be accepted.
    """
    fields = Fields(wire)
    ignore_port = fields.take("ignore_port_in_host_matching")
    hosts = fields.take("virtual_hosts")
    filters = fields.take("typed_per_filter_config")
    # Checks that Envoy makes on configuration, and what only concerns headers that nobody sends.
    fields.ignore(
        "name",
        "validate_clusters",
        "max_direct_response_body_size_bytes",
        "metadata",
        "most_specific_header_mutations_wins",
    )
    beyond = tuple(fields.rest())
    inherited = _Inherited(filters=dict(filters.items()), beyond=beyond)
    made = tuple(_virtual_host(host, inherited) for host in hosts)
    _refuse_repeated(made)
    return RouteTable(name=name, virtual_hosts=made, ignore_port_in_host=ignore_port, beyond=beyond)


def _refuse_repeated(hosts: tuple[VirtualHost, ...]) -> None:
    """As Envoy does: one that stands twice makes the whole ambiguous."""
    seen: set[str] = set()
    for host in hosts:
        for domain in host.domains:
            if domain.lower() in seen:
                raise BadResourceError(f"the domain {domain!r} is in it twice")
            seen.add(domain.lower())


def _virtual_host(wire: Any, table: _Inherited) -> VirtualHost:
    name, domains = wire.name, tuple(wire.domains)
    if not domains or "" in domains:
        raise BadResourceError(f"virtual host {name!r} has no domain, or an empty one")
    fields = Fields(wire)
    routes, matcher = fields.take("routes"), fields.take("matcher")
    retry = fields.take("retry_policy")
    filters = {**table.filters, **dict(fields.take("typed_per_filter_config").items())}
    # Statistics and metadata; the count of attempts is a header for the server that nothing needs.
    fields.ignore(
        "name", "domains", "virtual_clusters", "metadata", "include_request_attempt_count"
    )
    beyond = (*table.beyond, *fields.rest())
    inherited = _Inherited(retry=retry, filters=filters, beyond=beyond)
    around = inherited.around()
    made = [
        _kept.get((route.SerializeToString(deterministic=True), around))
        or _accepted(route, index, name, inherited, around)
        for index, route in enumerate(routes)
    ]
    if matcher is not None:
        told = (*beyond, "matcher: a tree of matchers in the place of routes")
        made.append(Route(match=_EVERYTHING, action=_NOWHERE, beyond=told))
    return VirtualHost(name, domains, tuple(made))


def _accepted(wire: Any, index: int, host: str, inherited: _Inherited, around: _Around) -> Route:
    try:
        made = _route(wire, inherited)
    except BadResourceError as error:
        label = f" ({wire.name})" if wire.name else ""
        raise BadResourceError(f"virtual host {host}, route {index + 1}{label}: {error}") from None
    if len(_kept) >= _MOST_KEPT:
        _kept.clear()
    _kept[wire.SerializeToString(deterministic=True), around] = made
    return made


def _route(wire: Any, inherited: _Inherited) -> Route:
    fields = Fields(wire)
    match = fields.take("match")
    found, told = (_EVERYTHING, ["match: there is none"]) if match is None else decode_match(match)
    action, more = _action(fields, inherited.retry)
    own = dict(fields.take("typed_per_filter_config").items())
    effects = decode_route_filters({**inherited.filters, **own})
    name = fields.take("name")
    fields.ignore("metadata", "decorator", "stat_prefix", "tracing")
    limit = effects.rate_limit
    if limit is not None and decode_route_filters(own).rate_limit is None:
        limit = replace(limit, inherited=True)
    return Route(
        name=name,
        match=found,
        action=action,
        abort=effects.abort,
        rate_limit=limit,
        rbac=None if effects.rbac is None else tuple(effects.rbac),
        tells=frozenset(effects.names),
        beyond=(*told, *more, *fields.rest(), *effects.beyond, *inherited.beyond),
    )


def _action(fields: Fields, retry: Any) -> tuple[Action, list[str]]:
    if fields.has("route"):
        return decode_forward(fields.take("route"), retry=retry)
    if fields.has("redirect"):
        return decode_redirect(fields.take("redirect"))
    if fields.has("direct_response"):
        return decode_direct(fields.take("direct_response"))
    if fields.has("filter_action") or fields.has("non_forwarding_action"):
        return _NOWHERE, []  # told by `rest`
    return _NOWHERE, ["action: there is none"]
