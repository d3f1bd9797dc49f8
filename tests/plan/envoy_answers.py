# SPDX-License-Identifier: Apache-2.0
"""What routes and filters do, as Envoy is told it; forwarding is a plain 200 there."""

from __future__ import annotations

from typing import Any

from runtime.model.http import (
    Abort,
    AllOf,
    AnyOf,
    Anything,
    Condition,
    DirectResponse,
    Forward,
    HeaderMatch,
    HttpPort,
    Not,
    PathIs,
    PrincipalIs,
    RateLimit,
    Rbac,
    Redirect,
    Route,
    RouteTable,
    SourceIn,
    Step,
)
from tests.plan.envoy_oracle import header_wire, path_wire, query_wire, text_wire

_TYPES = "type.googleapis.com/envoy"
_FILTERS = f"{_TYPES}.extensions.filters.http."
_CODES = {301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT",
          308: "PERMANENT_REDIRECT"}  # fmt: skip
PEER = "io.istio.peer_principal"  # where Istio keeps the client's identity
_DENOMINATORS = {100: "HUNDRED", 10_000: "TEN_THOUSAND", 1_000_000: "MILLION"}


def _share(numerator: int, denominator: int) -> dict[str, Any]:
    return {"numerator": numerator, "denominator": _DENOMINATORS[denominator]}


def fault_wire(abort: Abort | None) -> dict[str, Any]:
    wire: dict[str, Any] = {"@type": _FILTERS + "fault.v3.HTTPFault"}
    if abort is not None:
        share = _share(abort.numerator, abort.denominator)
        wire["abort"] = {"http_status": abort.status, "percentage": share}
        wire["headers"] = [header_wire(one) for one in abort.headers]
    return wire


def limit_wire(limit: RateLimit | None) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "@type": _FILTERS + "local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
    }
    if limit is not None:
        wire["status"] = {"code": limit.status}
        wire["token_bucket"] = {
            "max_tokens": limit.most, "tokens_per_fill": limit.tokens,
            "fill_interval": f"{limit.interval_ms / 1000:g}s",
        }  # fmt: skip
        wire["filter_enabled"] = {"default_value": _share(limit.numerator, limit.denominator)}
        wire["filter_enforced"] = {"default_value": _share(100, 100)}
    return wire


def _condition(condition: Condition, *, principal: bool) -> dict[str, Any]:
    word = "id" if principal else "rule"
    match condition:
        case Anything():
            return {"any": True}
        case Not(inner):
            return {f"not_{word}": _condition(inner, principal=principal)}
        case AllOf(parts) | AnyOf(parts):
            kind = "and" if isinstance(condition, AllOf) else "or"
            each = [_condition(part, principal=principal) for part in parts]
            return {f"{kind}_{word}s": {f"{word}s": each}}
        case _:
            return _leaf(condition)


def _leaf(condition: Condition) -> dict[str, Any]:
    match condition:
        case HeaderMatch():
            return {"header": header_wire(condition)}
        case PathIs(text):
            return {"url_path": {"path": text_wire(text)}}
        case SourceIn(block):
            network = {"address_prefix": str(block.network_address), "prefix_len": block.prefixlen}
            return {"remote_ip": network}
        case PrincipalIs(text):
            return {"filter_state": {"key": PEER, "string_match": text_wire(text)}}
        case _:
            raise NotImplementedError(condition)


def rbac_wire(rbac: Rbac) -> dict[str, Any]:
    policies = {
        one.name: {
            "permissions": [_condition(each, principal=False) for each in one.permissions],
            "principals": [_condition(each, principal=True) for each in one.principals],
        }
        for one in rbac.policies
    }
    rules = {"action": str(rbac.action), "policies": policies}
    return {"@type": _FILTERS + "rbac.v3.RBAC", "rules": rules}


def filters_wire(port: HttpPort) -> list[dict[str, Any]]:
    """The HTTP filters of a port, before the router."""
    made: list[dict[str, Any]] = []
    for step in port.steps:
        match step:
            case Step.FAULT:
                made.append({"name": "fault", "typed_config": fault_wire(port.abort)})
            case Step.RATE_LIMIT:
                made.append({"name": "limit", "typed_config": limit_wire(port.rate_limit)})
            case Step.RBAC:
                rules = port.rbac or (None,)
                made += [
                    {"name": f"rbac{number}", "typed_config": rbac_wire(one) if one else
                     {"@type": _FILTERS + "rbac.v3.RBAC"}}
                    for number, one in enumerate(rules)
                ]  # fmt: skip
    return made


def _redirect(action: Redirect) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "response_code": _CODES[action.status],
        "strip_query": action.strip_query,
    }
    if action.https:
        wire["https_redirect"] = True
    elif action.scheme is not None:
        wire["scheme_redirect"] = action.scheme
    authority = {"host_redirect": action.host, "port_redirect": action.port}
    wire |= {name: value for name, value in authority.items() if value is not None}
    if action.path is not None:
        wire["path_redirect"] = action.path
    elif action.prefix is not None:
        wire["prefix_rewrite"] = action.prefix
    return wire


def _route(route: Route) -> dict[str, Any]:
    match = path_wire(route.match.path)
    match["headers"] = [header_wire(one) for one in route.match.headers]
    match["query_parameters"] = [query_wire(one) for one in route.match.query]
    wire: dict[str, Any] = {"match": match, "typed_per_filter_config": {}}
    match route.action:
        case Redirect():
            wire["redirect"] = _redirect(route.action)
        case DirectResponse(status, body):
            wire["direct_response"] = {"status": status}
            if body:
                wire["direct_response"]["body"] = {"inline_string": body.decode()}
        case Forward():
            wire["direct_response"] = {"status": 200}
    own = wire["typed_per_filter_config"]
    if route.abort is not None:
        own["fault"] = fault_wire(route.abort)
    if route.rate_limit is not None:
        own["limit"] = limit_wire(route.rate_limit)
    if route.rbac is not None:
        per_route: dict[str, Any] = {"@type": _FILTERS + "rbac.v3.RBACPerRoute"}
        if route.rbac:
            inner = rbac_wire(route.rbac[0])
            per_route["rbac"] = {"rules": inner["rules"]}
        own["rbac0"] = per_route
    return wire


def resource(table: RouteTable) -> dict[str, Any]:
    """The RouteConfiguration of a table, with what its routes do."""
    hosts = [
        {"name": f"{number}-{host.name}", "domains": list(host.domains),
         "routes": [_route(one) for one in host.routes]}
        for number, host in enumerate(table.virtual_hosts)
    ]  # fmt: skip
    return {"@type": f"{_TYPES}.config.route.v3.RouteConfiguration", "name": "routes",
            "ignore_port_in_host_matching": table.ignore_port_in_host,
            "virtual_hosts": hosts}  # fmt: skip
