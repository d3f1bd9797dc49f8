# SPDX-License-Identifier: Apache-2.0
"""Gateway API `HTTPRoute` for a Service: its rules, as they are written.

A route for a Service takes all requests to it, whatever their Host: `hostnames` says nothing here, and
neither do parents that are gateways. What a rule asks beyond routing (changes of headers and
paths, mirroring, timeouts, retries) goes to `beyond`, and so does every field that is not known.
Source: https://gateway-api.sigs.k8s.io/reference/spec/#httproute, GEP-1294 (a Service as parent)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.model.http import (
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Redirect,
    RouteMatch,
    TextKind,
    TextMatch,
)
from runtime.source.fields import Field
from runtime.source.kubernetes_service import service_key

_TEXTS = {"Exact": TextKind.EXACT, "RegularExpression": TextKind.REGEX}
_PATHS = ("Exact", "PathPrefix", "RegularExpression")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_ALL_PATHS = PathMatch(PathKind.PREFIX, "/")
_FILTER_FIELDS = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "ExtensionRef": "extensionRef",
    "CORS": "cors",
    "ExternalAuth": "externalAuth",
}
_ZERO = ("0s", "0ms", "0h", "0m", "0")


@dataclass(frozen=True, slots=True)
class Parent:
    """A service that a route is for; `port` 0 is all of its ports."""

    service: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Backend:
    """A service that requests go to, with a weight."""

    service: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRule:
    name: str
    matches: tuple[RouteMatch, ...]
    backends: tuple[Backend, ...] = ()
    redirect: Redirect | None = None
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRoute:
    """An HTTPRoute; `created` orders those that match alike (RFC 3339, "" where it is not told)."""

    name: str
    namespace: str
    created: str = ""
    parents: tuple[Parent, ...] = ()
    rules: tuple[GatewayRule, ...] = ()


def parse_http_route(document: Field, *, name: str, namespace: str) -> GatewayRoute:
    """Read an HTTPRoute.

    Raises:
        FieldError: a field is wrong, or it is for a Service of another namespace.
    """
    spec = document.get("spec")
    rules = tuple(_rule(rule, namespace=namespace) for rule in spec.get("rules").items())
    return GatewayRoute(
        name=name,
        namespace=namespace,
        created=_created(document),
        parents=tuple(_parents(spec.get("parentRefs"), namespace=namespace)),
        rules=rules or (GatewayRule(name="", matches=(RouteMatch(_ALL_PATHS),)),),
    )


def _created(document: Field) -> str:
    """YAML makes a time of what looks like one; written alike, they are ordered by their text."""
    value = document.get("metadata").get("creationTimestamp").value
    return "" if value is None else str(value)


def _parents(refs: Field, *, namespace: str) -> Iterator[Parent]:
    for ref in refs.items():
        group = ref.get("group").string(default="gateway.networking.k8s.io")
        if (group, ref.get("kind").string(default="Gateway")) != ("", "Service"):
            continue
        where = ref.get("namespace")
        if where.string(default=namespace) != namespace:
            raise where.error(
                "a Service of another namespace: such a route holds for clients of its own "
                "namespace alone, which is not supported"
            )
        port = ref.get("port")
        number = port.integer(low=1, high=65535) if port.given else 0
        yield Parent(service_key(ref.get("name").name(), namespace), number)


def _unread(field: Field, *known: str) -> list[str]:
    if not isinstance(field.value, dict):
        return []
    return [f"{field.path}.{name}" for name in field.value if name not in known]


def _rule(rule: Field, *, namespace: str) -> GatewayRule:
    beyond = _unread(rule, "name", "matches", "filters", "backendRefs", "timeouts")
    matches = [_match(match, beyond) for match in rule.get("matches").items()]
    redirect = _filters(rule.get("filters"), beyond)
    for name in ("request", "backendRequest"):
        timeout = rule.get("timeouts").get(name).string(default="0s")
        if timeout not in _ZERO:
            beyond.append(f"timeouts.{name}: {timeout}")
    backends = [_backend(ref, namespace, beyond) for ref in rule.get("backendRefs").items()]
    return GatewayRule(
        name=rule.get("name").string(default=""),
        matches=tuple(matches) or (RouteMatch(_ALL_PATHS),),
        backends=tuple(backends),
        redirect=redirect,
        beyond=tuple(beyond),
    )


def _match(match: Field, beyond: list[str]) -> RouteMatch:
    beyond += _unread(match, "path", "headers", "queryParams", "method")
    headers: dict[str, HeaderMatch] = {}
    if match.get("method").given:
        method = match.get("method").choice(*_METHODS)
        headers[":method"] = HeaderMatch(":method", TextMatch(TextKind.EXACT, method))
    for field in match.get("headers").items():
        name = field.get("name").name().lower()
        name = ":authority" if name == "host" else name
        headers.setdefault(name, HeaderMatch(name, _text(field)))  # the first of a name counts
    query: dict[str, QueryMatch] = {}
    for field in match.get("queryParams").items():
        name = field.get("name").name()
        query.setdefault(name, QueryMatch(name, _text(field)))
    return RouteMatch(_path(match.get("path")), tuple(headers.values()), tuple(query.values()))


def _text(field: Field) -> TextMatch:
    kind = field.get("type").choice(*_TEXTS, default="Exact")
    return TextMatch(_TEXTS[kind], field.get("value").string())


def _path(path: Field) -> PathMatch:
    if not path.given:
        return _ALL_PATHS
    kind = path.get("type").choice(*_PATHS, default="PathPrefix")
    value = path.get("value").string(default="/")
    if kind == "RegularExpression":
        return PathMatch(PathKind.REGEX, value)
    if not value.startswith("/"):
        raise path.get("value").error("must begin with a /")
    if kind == "Exact":
        return PathMatch(PathKind.EXACT, value)
    # By elements of the path: /a takes /a and /a/b, and so does /a/; it does not take /ab.
    elements = value.rstrip("/")
    return PathMatch(PathKind.SEPARATED_PREFIX, elements) if elements else _ALL_PATHS


def _backend(ref: Field, namespace: str, beyond: list[str]) -> Backend:
    beyond += _unread(ref, "group", "kind", "name", "namespace", "port", "weight", "filters")
    group, kind = ref.get("group").string(default=""), ref.get("kind").string(default="Service")
    if (group, kind) != ("", "Service"):
        beyond.append(f"{ref.path}.kind: {kind}")
    where = ref.get("namespace").string(default=namespace)
    if where != namespace:
        beyond.append(f"{ref.path}.namespace: {where}, which takes a ReferenceGrant")
    if list(ref.get("filters").items()):
        beyond.append(f"{ref.path}.filters: for one backend alone")
    weight = ref.get("weight")
    return Backend(
        service_key(ref.get("name").name(), where),
        ref.get("port").integer(low=1, high=65535),
        weight.integer(low=0, high=1_000_000) if weight.given else 1,
    )


def _filters(filters: Field, beyond: list[str]) -> Redirect | None:
    redirect = None
    for item in filters.items():
        kind = item.get("type").name()
        if kind == "RequestRedirect" and redirect is None:
            beyond += _unread(item, "type", "requestRedirect")
            redirect = _redirect(item.get("requestRedirect"), beyond)
        else:
            config = item.get(_FILTER_FIELDS.get(kind, kind)).value
            beyond.append(f"{item.path}: {kind}{_names(config)}")
    return redirect


def _names(config: object) -> str:
    """What of a filter's configuration is set: its names are told, its values are not."""
    return f" ({', '.join(map(str, config))})" if isinstance(config, dict) and config else ""


def _redirect(field: Field, beyond: list[str]) -> Redirect:
    beyond += _unread(field, "scheme", "hostname", "path", "port", "statusCode")
    code, port = field.get("statusCode"), field.get("port")
    status = code.integer(low=301, high=308) if code.given else 302
    if status not in (301, 302, 303, 307, 308):
        raise code.error(f"must be 301, 302, 303, 307 or 308, not {status}")
    full, prefix = None, None
    path = field.get("path")
    if path.given:
        kind = path.get("type").choice("ReplaceFullPath", "ReplacePrefixMatch")
        if kind == "ReplaceFullPath":
            full = path.get("replaceFullPath").string()
        else:
            prefix = path.get("replacePrefixMatch").string()
            if not prefix.strip("/"):
                # It takes the slash that follows too, which depends on the request.
                beyond.append(f"{path.path}.replacePrefixMatch: {prefix or 'nothing'}")
    scheme = field.get("scheme")
    return Redirect(
        status=status,
        scheme=scheme.choice("http", "https") if scheme.given else None,
        host=field.get("hostname").name() if field.get("hostname").given else None,
        port=port.integer(low=1, high=65535) if port.given else None,
        path=full,
        prefix=prefix.rstrip("/") if prefix is not None else None,
    )
