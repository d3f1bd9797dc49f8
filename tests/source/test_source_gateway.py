# SPDX-License-Identifier: Apache-2.0
"""HTTPRoutes of a directory: what they mean for requests, in the order of the Gateway API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.model.http import (
    DirectResponse,
    Forward,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Redirect,
    Route,
    TextKind,
    TextMatch,
)
from runtime.model.http_picture import HttpPicture
from runtime.plan.ability import Ability
from runtime.plan.planned import Place
from runtime.plan.planner import make_plan
from runtime.source.directory import Directory
from runtime.source.files import State
from runtime.source.update import Update

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-x, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: canary, namespace: shop}
spec: {clusterIP: 10.96.0.11, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: rpc, namespace: shop}
spec: {clusterIP: 10.96.0.12, ports: [{name: rpc, port: 80, appProtocol: grpc}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.1], targetRef: {kind: Pod, name: a}}
- {addresses: [10.244.0.2], targetRef: {kind: Pod, name: b}, conditions: {ready: false}}
"""
CLUSTER = "outbound|80||{}.shop.svc.cluster.local"
WEB, CANARY = CLUSTER.format("web"), CLUSTER.format("canary")


class Files:
    """A directory and what its reader has told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = Directory(path)
        self.state = State()
        self.http = HttpPicture()
        self.rejected: dict[str, str] = {}
        self.write("services.yaml", SERVICES)

    def write(self, name: str, text: str | bytes) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        (self.path / name).write_bytes(data)

    def poll(self) -> Update:
        update = self.state.take(self.directory.scan())
        if update.http is not None:
            self.http.take(update.http)
        for name in update.accepted:
            self.rejected.pop(name, None)
        self.rejected.update({each.resource: each.reason for each in update.rejections})
        return update

    def routes(self, port: str = "shop/web:80") -> list[Route]:
        return list(self.http.tables[port].virtual_hosts[0].routes)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def http_route(*rules: dict[str, Any], name: str = "r", parent: Any = None, **meta: str) -> str:
    parents = [{"group": "", "kind": "Service", "name": "web", "port": 80} | (parent or {})]
    return yaml.safe_dump(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": "shop"} | meta,
            "spec": {"parentRefs": parents, "rules": list(rules)},
        }
    )


def to(*names: str, **weights: int) -> list[dict[str, Any]]:
    return [
        {"name": n, "port": 80, **({"weight": weights[n]} if weights else {})}
        for n in names or weights
    ]


def path(value: str, kind: str = "PathPrefix") -> dict[str, Any]:
    return {"path": {"type": kind, "value": value}}


def only(files: Files, rule: dict[str, Any]) -> Route:
    files.write("r.yaml", http_route(rule))
    files.poll()
    assert files.rejected == {}
    (route,) = files.routes()
    return route


def test_without_a_route_there_is_no_http(files):
    assert files.poll().http is None


def test_a_route_makes_an_http_port_of_the_services(files):
    files.write("r.yaml", http_route({"backendRefs": to(web=9, canary=1)}))
    update = files.poll()
    assert update.http is not None
    assert update.http.complete
    (listener,) = files.http.listeners.values()
    (port,) = listener.ports
    assert (str(port.address), port.port) == ("10.96.0.10", 80)
    assert port.opaque_cluster == WEB
    (route,) = files.routes()
    assert isinstance(route.action, Forward)
    assert {c.name: c.weight for c in route.action.clusters} == {WEB: 9, CANARY: 1}
    assert files.http.tables["shop/web:80"].virtual_hosts[0].domains == ("*",)
    endpoints = files.http.endpoints[WEB].endpoints
    assert [(str(e.address), e.port, e.healthy) for e in endpoints] == [
        ("10.244.0.1", 8080, True),
        ("10.244.0.2", 8080, False),
    ]
    assert files.http.endpoints[CANARY].endpoints == ()
    planned = make_plan(files.http, ability=Ability()).port_of(port.address, 80)
    assert planned is not None
    assert planned.hosts[0].routes[0].place is Place.KERNEL


def test_a_parent_without_a_port_is_all_ports_that_may_speak_http(files):
    parent = {"port": None}
    files.write("r.yaml", http_route({"backendRefs": to("web")}, parent=parent))
    files.poll()
    assert set(files.http.tables) == {"shop/web:80"}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, PathMatch(PathKind.PREFIX, "/")),
        (path("/"), PathMatch(PathKind.PREFIX, "/")),
        (path("/a"), PathMatch(PathKind.SEPARATED_PREFIX, "/a")),
        (path("/a/"), PathMatch(PathKind.SEPARATED_PREFIX, "/a")),
        (path("/a", "Exact"), PathMatch(PathKind.EXACT, "/a")),
        (path("/a+", "RegularExpression"), PathMatch(PathKind.REGEX, "/a+")),
    ],
)
def test_paths(files, match, expected):
    assert only(files, {"matches": [match], "backendRefs": to("web")}).match.path == expected


def test_headers_methods_and_queries(files):
    match = {
        "method": "GET",
        "headers": [
            {"name": "X-A", "value": "b"},
            {"name": "x-a", "value": "ignored"},
            {"name": "y", "value": "b+", "type": "RegularExpression"},
        ],
        "queryParams": [{"name": "q", "value": "1"}],
    }
    made = only(files, {"matches": [match], "backendRefs": to("web")}).match
    assert made.headers == (
        HeaderMatch(":method", TextMatch(TextKind.EXACT, "GET")),
        HeaderMatch("x-a", TextMatch(TextKind.EXACT, "b")),
        HeaderMatch("y", TextMatch(TextKind.REGEX, "b+")),
    )
    assert made.query == (QueryMatch("q", TextMatch(TextKind.EXACT, "1")),)


def redirect(**config: Any) -> dict[str, Any]:
    return {"filters": [{"type": "RequestRedirect", "requestRedirect": config}]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Redirect(status=302)),
        (
            {"scheme": "https", "hostname": "h", "port": 8443, "statusCode": 301},
            Redirect(status=301, scheme="https", host="h", port=8443),
        ),
        (
            {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/b"}},
            Redirect(status=302, path="/b"),
        ),
        (
            {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b/"}},
            Redirect(status=302, prefix="/b"),
        ),
    ],
)
def test_redirects(files, config, expected):
    made = only(files, redirect(**config))
    assert made.action == expected
    assert made.beyond == ()


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"timeouts": {"request": "2s"}}, "timeouts.request: 2s"),
        ({"retry": {"attempts": 3}}, "spec.rules[0].retry"),
        ({"sessionPersistence": {}}, "spec.rules[0].sessionPersistence"),
        (
            {"matches": [{"path": {"value": "/"}, "cookies": []}]},
            "spec.rules[0].matches[0].cookies",
        ),
        (
            {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": []}}]},
            "spec.rules[0].filters[0]: RequestHeaderModifier (add)",
        ),
        (
            {"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "x"}}]},
            "spec.rules[0].filters[0]: URLRewrite (hostname)",
        ),
        (
            {"filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {}}}]},
            "spec.rules[0].filters[0]: RequestMirror (backendRef)",
        ),
        ({"filters": [{"type": "Acme"}]}, "spec.rules[0].filters[0]: Acme"),
        (
            redirect(path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}),
            "spec.rules[0].filters[0].requestRedirect.path.replacePrefixMatch: /",
        ),
        (
            {"backendRefs": [{"name": "web", "port": 80, "filters": [{"type": "CORS"}]}]},
            "spec.rules[0].backendRefs[0].filters: for one backend alone",
        ),
        (
            {"backendRefs": [{"name": "web", "port": 80, "namespace": "other"}]},
            "spec.rules[0].backendRefs[0].namespace: other, which takes a ReferenceGrant",
        ),
        (
            {"backendRefs": [{"name": "web", "port": 80, "kind": "ServiceImport"}]},
            "spec.rules[0].backendRefs[0].kind: ServiceImport",
        ),
    ],
)
def test_what_a_rule_asks_beyond_is_told(files, rule, told):
    made = only(files, {"backendRefs": to("web")} | rule)
    assert told in made.beyond
    plan = make_plan(files.http, ability=Ability())
    (port,) = plan.ports.values()
    assert port.hosts[0].routes[0].place is Place.WAYPOINT


@pytest.mark.parametrize("rule", [{}, {"backendRefs": []}, {"backendRefs": to(web=0)}])
def test_a_rule_that_leads_nowhere_answers_500(files, rule):
    assert only(files, rule).action == DirectResponse(500)


def test_a_backend_that_is_not_there_is_the_waypoints(files):
    only(files, {"backendRefs": to("gone")})
    (port,) = make_plan(files.http, ability=Ability()).ports.values()
    assert port.hosts[0].routes[0].reasons == (
        f"cluster {CLUSTER.format('gone')}: it is not known",
    )


def test_a_backend_that_speaks_grpc_is_the_waypoints(files):
    only(files, {"backendRefs": to("rpc")})
    (port,) = make_plan(files.http, ability=Ability()).ports.values()
    assert "gRPC" in port.hosts[0].routes[0].reasons[0]


def test_the_most_exact_match_goes_first_over_all_routes(files):
    def rule(name: str, **match: Any) -> dict[str, Any]:
        return {"name": name, "matches": [match], "backendRefs": to("web")}

    header = [{"name": "a", "value": "b"}]
    files.write(
        "r.yaml",
        http_route(
            rule("any"),
            rule("regex", **path("/a.*", "RegularExpression")),
            rule("short", **path("/a")),
            rule("header", **path("/a"), headers=header),
            rule("method", **path("/a"), method="GET"),
            rule("query", **path("/a"), queryParams=header),
            rule("long", **path("/a/b")),
            rule("exact", **path("/a", "Exact")),
            name="first",
        ),
    )
    files.write(
        "s.yaml",
        http_route(
            rule("two headers", **path("/a"), headers=[*header, {"name": "c", "value": "d"}]),
            rule("short again", **path("/a")),
            name="second",
        ),
    )
    files.poll()
    assert [route.name.rpartition("/")[2] for route in files.routes()] == [
        "exact", "long", "method", "two headers", "header", "query", "short", "short again", "any",
        "regex",
    ]  # fmt: skip


def test_the_older_of_two_alike_goes_first(files):
    rule = {"backendRefs": to("web")}
    files.write("a.yaml", http_route(rule, name="a", creationTimestamp="2026-01-02T00:00:00Z"))
    files.write("b.yaml", http_route(rule, name="b", creationTimestamp="2026-01-01T00:00:00Z"))
    files.write("c.yaml", http_route(rule, name="c"))
    files.poll()
    assert [route.name for route in files.routes()] == ["shop/b/1", "shop/a/1", "shop/c/1"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (http_route(parent={"namespace": "other"}), "spec.parentRefs[0].namespace: a Service of"),
        (http_route({"matches": [path("a")]}), "spec.rules[0].matches[0].path.value: must begin"),
        (http_route({"matches": [{"method": "BREW"}]}), "spec.rules[0].matches[0].method: must be"),
        (http_route({"backendRefs": [{"name": "web"}]}), "spec.rules[0].backendRefs[0].port: miss"),
        (http_route(redirect(statusCode=304)), "must be 301, 302, 303, 307 or 308"),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_last_good_version_stays(files, text, why):
    files.write("r.yaml", http_route({"backendRefs": to("canary")}))
    files.poll()
    before = files.routes()
    files.write("r.yaml", text)
    files.poll()
    (reason,) = files.rejected.values()
    assert why in reason
    assert files.routes() == before
    files.write("r.yaml", http_route({"backendRefs": to("web")}))
    files.poll()
    assert files.rejected == {}
    assert files.routes() != before


def test_a_gateways_route_is_not_ours(files):
    files.write("r.yaml", http_route({"backendRefs": to("web")}, parent={"kind": "Gateway"}))
    files.poll()
    assert files.rejected == {}
    assert files.http.tables == {}


def test_a_change_is_only_what_changed_and_a_route_that_goes_takes_its_port_along(files):
    files.write("r.yaml", http_route({"backendRefs": to("web")}))
    files.poll()
    files.write("services.yaml", SERVICES.replace("10.244.0.1]", "10.244.0.9]"))
    update = files.poll()
    assert update.http is not None
    assert set(update.http.endpoints) == {WEB}
    assert not update.http.tables
    assert str(files.http.endpoints[WEB].endpoints[0].address) == "10.244.0.9"
    (files.path / "r.yaml").unlink()
    files.poll()
    assert files.http.listeners == {}
    assert files.http.tables == {}
    assert files.http.clusters == {}


def test_who_wants_http_is_told_that_there_is_none(tmp_path: Path) -> None:
    """An earlier daemon may have left routes in the kernel, which are gone from the files."""
    files = Files(tmp_path)
    assert files.poll().http is None
    files.state.wants_http = True
    told = files.poll().http
    assert told is not None
    assert told.complete
    assert not told.tables
    assert files.poll().http is None, "once"
