# SPDX-License-Identifier: Apache-2.0
"""HTTP filters: what they do to every request of a port, and what a route says to them.

A filter is known by the type of its configuration, since names are free. Those that only observe
(statistics, telemetry, the peer's metadata) are passed over; whatever is not known is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.model.http import Abort, RateLimit, Rbac, Step
from runtime.source.envoy.fault import NEVER, decode_fault
from runtime.source.envoy.messages import type_name, unpack
from runtime.source.envoy.rate_limit import decode_rate_limit
from runtime.source.envoy.rbac import decode_rbac
from runtime.source.envoy.whitelist import Fields

_FILTERS = "envoy.extensions.filters.http."
_FAULT = _FILTERS + "fault.v3.HTTPFault"
_RBAC = _FILTERS + "rbac.v3.RBAC"
_RATE_LIMIT = _FILTERS + "local_ratelimit.v3.LocalRateLimit"
_ROUTER = _FILTERS + "router.v3.Router"
_TYPED_STRUCTS = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
_ROUTE_CONFIG = "envoy.config.route.v3.FilterConfig"
_RBAC_ROUTE = _FILTERS + "rbac.v3.RBACPerRoute"
_CORS_ROUTE = _FILTERS + "cors.v3.CorsPolicy"
_STEPS = {_FAULT: Step.FAULT, _RBAC: Step.RBAC, _RATE_LIMIT: Step.RATE_LIMIT}
# They observe, or do something only where a route says so (CORS), which is then told there.
_OBSERVERS = frozenset(
    {
        _FILTERS + "cors.v3.Cors",
        _FILTERS + "grpc_stats.v3.FilterConfig",
        "io.istio.http.peer_metadata.Config",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "stats.PluginConfig",
    }
)


@dataclass(slots=True)
class Effects:
    """What filters do; for a route, None where it leaves that to its port.

    Attributes:
        names: the filters that are configured.
        steps: what those of a port do, in order.
        beyond: what of it cannot be expressed.
    """

    names: set[str] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    abort: Abort | None = None
    rate_limit: RateLimit | None = None
    rbac: list[Rbac] | None = None
    beyond: list[str] = field(default_factory=list)


def decode_filters(wires: Any) -> Effects:
    """The filters of a connection manager, in order."""
    effects = Effects(rbac=[])
    for wire in wires:
        fields = Fields(wire, f"http_filters {wire.name}: ")
        name = fields.take("name")
        config = fields.take("typed_config")
        fields.ignore("is_optional")
        if fields.take("disabled"):
            continue
        effects.beyond += fields.rest()
        effects.names.add(name)
        if config is None:
            effects.beyond.append(f"http_filters {name}: its configuration is elsewhere")
        elif not _apply(config, effects):
            kind = _kind(config)
            effects.beyond.append(f"http_filters {name}: {kind} is not known here")
    return effects


def _apply(config: Any, effects: Effects) -> bool:
    """Take a filter's configuration; False for a kind that is not known."""
    kind = _kind(config)
    if kind in _OBSERVERS:
        return True
    if kind in _STEPS and _STEPS[kind] not in effects.steps:
        effects.steps.append(_STEPS[kind])
    message = unpack(config)
    if kind == _ROUTER:
        effects.beyond += _router(message)
    elif kind == _FAULT:
        effects.abort = _of_route(message, effects, decode_fault, effects.abort)
    elif kind == _RATE_LIMIT:
        if effects.rate_limit is not None:
            effects.beyond.append("local_ratelimit: a second one on the same port")
        effects.rate_limit = _of_route(message, effects, decode_rate_limit, effects.rate_limit)
    elif kind == _RBAC:
        rules, told = decode_rbac(message)
        effects.beyond += told
        effects.rbac = [*(effects.rbac or ()), *([rules] if rules else [])]
    else:
        return False
    return True


def _of_route(message: Any, effects: Effects, decode: Any, before: Any) -> Any:
    made, told = decode(message)
    effects.beyond += told
    return made or before


def _router(message: Any) -> list[str]:
    fields = Fields(message, "router.")
    # Statistics, logs and tracing; and what a proxy adds to requests, which the path does not.
    fields.ignore("dynamic_stats", "start_child_span", "upstream_log", "upstream_log_options")
    fields.ignore("suppress_envoy_headers", "suppress_grpc_request_failure_code_stats")
    return fields.rest()


def _kind(config: Any) -> str:
    kind = type_name(config)
    if kind in _TYPED_STRUCTS:
        return type_name(unpack(config))
    return kind


def decode_route_filters(configs: Mapping[str, Any]) -> Effects:
    """What a route says to filters, by the filter's name; the route's own and all that it inherits."""
    effects = Effects()
    for name in sorted(configs):
        effects.names.add(name)
        _route_filter(name, configs[name], effects)
    return effects


def _route_filter(name: str, config: Any, effects: Effects) -> None:
    kind = _kind(config)
    where = f"typed_per_filter_config {name}"
    if kind == _ROUTE_CONFIG:
        fields = Fields(unpack(config), f"{where}: ")
        inner, off = fields.take("config"), fields.take("disabled")
        fields.ignore("is_optional")
        effects.beyond += fields.rest()
        if off:
            effects.beyond.append(f"{where}: disabled")
        elif inner is not None:
            _route_filter(name, inner, effects)
    elif kind == _CORS_ROUTE:
        told = Fields(unpack(config), "cors.").rest()
        effects.beyond += told
    elif kind == _FAULT:
        made, told = decode_fault(unpack(config))
        effects.abort = made or NEVER  # it stands in the place of the port's, also when it is empty
        effects.beyond += told
    elif kind == _RATE_LIMIT:
        effects.rate_limit, told = decode_rate_limit(unpack(config))
        effects.beyond += told
        if effects.rate_limit is None and not told:
            effects.beyond.append(f"{where}: it lifts the limit of the port")
    elif kind == _RBAC_ROUTE:
        fields = Fields(unpack(config), f"{where}: ")
        rules, told = decode_rbac(fields.take("rbac")) if fields.has("rbac") else (None, [])
        effects.rbac = [rules] if rules else []
        effects.beyond += told + fields.rest()
    elif kind not in _OBSERVERS:
        effects.beyond.append(f"{where}: {kind or 'nothing'} is not known here")
