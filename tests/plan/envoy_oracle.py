# SPDX-License-Identifier: Apache-2.0
"""A real Envoy that is given one route table after another, and says which route a request takes."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runtime.model.http import (
    DirectResponse,
    Forward,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Redirect,
    Route,
    RouteTable,
    TextKind,
    TextMatch,
)

PROBE = "which-version.test"
AT_ONCE = 30  # connections
_TYPES = "type.googleapis.com/envoy"
_MANAGER = f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def text_wire(text: TextMatch) -> dict[str, Any]:
    if text.kind is TextKind.REGEX:
        return {"safe_regex": {"regex": text.value}}
    names = {TextKind.EXACT: "exact", TextKind.PREFIX: "prefix", TextKind.SUFFIX: "suffix",
             TextKind.CONTAINS: "contains"}  # fmt: skip
    return {names[text.kind]: text.value, "ignore_case": text.ignore_case}


def path_wire(path: PathMatch) -> dict[str, Any]:
    if path.kind is PathKind.REGEX:
        return {"safe_regex": {"regex": path.value}}
    names = {PathKind.EXACT: "path", PathKind.PREFIX: "prefix",
             PathKind.SEPARATED_PREFIX: "path_separated_prefix"}  # fmt: skip
    return {names[path.kind]: path.value, "case_sensitive": not path.ignore_case}


def header_wire(header: HeaderMatch) -> dict[str, Any]:
    made: dict[str, Any] = {"name": header.name, "invert_match": header.invert,
                            "treat_missing_header_as_empty": header.missing_as_empty}  # fmt: skip
    if header.text.kind is TextKind.PRESENT:
        return made | {"present_match": True}
    return made | {"string_match": text_wire(header.text)}


def query_wire(query: QueryMatch) -> dict[str, Any]:
    if query.text.kind is TextKind.PRESENT:
        return {"name": query.name, "present_match": True}
    return {"name": query.name, "string_match": text_wire(query.text)}


def _redirect(action: Redirect) -> dict[str, Any]:
    codes = {301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT",
             308: "PERMANENT_REDIRECT"}  # fmt: skip
    made: dict[str, Any] = {
        "response_code": codes[action.status],
        "strip_query": action.strip_query,
    }
    names = {"host": "host_redirect", "port": "port_redirect", "path": "path_redirect",
             "prefix": "prefix_rewrite", "scheme": "scheme_redirect"}  # fmt: skip
    made |= {names[name]: value for name in names if (value := getattr(action, name))}
    return made | ({"https_redirect": True} if action.https else {})


def _action(route: Route) -> dict[str, Any]:
    """What a route does; of weighted clusters only those that are alone."""
    match route.action:
        case Forward(clusters=(one,)):
            return {"route": {"cluster": one.name, "timeout": "0s"}}
        case Redirect():
            return {"redirect": _redirect(route.action)}
        case DirectResponse():
            return {"direct_response": {"status": route.action.status}}
    raise AssertionError(f"no action of the oracle's: {route.action}")


def _route(route: Route, name: str) -> dict[str, Any]:
    match = path_wire(route.match.path)
    match["headers"] = [header_wire(one) for one in route.match.headers]
    match["query_parameters"] = [query_wire(one) for one in route.match.query]
    return {"match": match, **_action(route), "response_headers_to_add": [
        {"header": {"key": "x-route", "value": name}}]}  # fmt: skip


def configuration(table: RouteTable) -> dict[str, Any]:
    """The RouteConfiguration resource of a table; each route answers with its place in the table."""
    hosts = [
        {"name": f"{number}-{host.name}", "domains": list(host.domains),
         "routes": [_route(one, f"{number}/{index}") for index, one in enumerate(host.routes)],
         # A virtual host without a route answers 404 like none at all.
         "response_headers_to_add": [{"header": {"key": "x-host", "value": str(number)}}]}
        for number, host in enumerate(table.virtual_hosts)
    ]  # fmt: skip
    return {"@type": f"{_TYPES}.config.route.v3.RouteConfiguration", "name": "routes",
            "ignore_port_in_host_matching": table.ignore_port_in_host,
            "virtual_hosts": hosts}  # fmt: skip


def _probe(version: int) -> dict[str, Any]:
    return {"name": "probe", "domains": [PROBE], "routes": [{
        "match": {"prefix": "/"}, "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "x-route", "value": f"v{version}"}}]}]}  # fmt: skip


def cluster_wire(name: str, port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    """The resource of a cluster of one endpoint."""
    place = {"address": {"socket_address": {"address": host, "port_value": port}}}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": place}]}]}}  # fmt: skip


def bootstrap(
    directory: Path,
    ports: Mapping[str, int],
    filters: Sequence[Mapping[str, Any]] = (),
    clusters: Sequence[Mapping[str, Any]] = (),
    manager: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """A connection manager as Istiod configures it for a sidecar's outbound traffic."""
    whole = {
        "@type": _MANAGER,
        "stat_prefix": "oracle",
        "rds": {"route_config_name": "routes", "config_source": {
            "path_config_source": {"path": str(directory / "routes.json")},
            "resource_api_version": "V3"}},
        "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.router.v3.Router"}}],
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "use_remote_address": False,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "max_request_headers_kb": 60,
        **manager,
    }  # fmt: skip
    return {
        "node": {"id": "oracle", "cluster": "oracle"},
        "admin": {"address": {"pipe": {"path": str(directory / "admin")}}},
        "static_resources": {"listeners": [{
            "name": "oracle",
            "address": {"pipe": {"path": str(directory / "listen")}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": whole}]}],
        }], "clusters": [*(cluster_wire(name, port) for name, port in ports.items()), *clusters]},
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What Envoy said: `route` is "host/route", "" where there is none; `closed`: it hung up."""

    status: int
    route: str
    closed: bool = False
    backend: str = ""
    target: str = ""
    location: str = ""
    policy: str = ""


class Connection:
    """A connection that is kept alive, with one request on its way at most."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._rest = b""
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, request: bytes) -> None:
        self._socket.sendall(request)

    def answer(self, *, head_only: bool) -> Answer:
        head = self._read_head()
        if head is None:
            return Answer(0, "", closed=True)
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if not head_only:
            self._skip(int(fields.get("content-length", "0")))
        closed = fields.get("connection") == "close"
        cased = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        return Answer(
            int(lines[0].split()[1]), fields.get("x-route", ""), closed,
            fields.get("x-backend", ""), cased.get("x-target", ""), cased.get("location", ""),
            cased.get("x-policy", ""),
        )  # fmt: skip

    def _read_head(self) -> bytes | None:
        while b"\r\n\r\n" not in self._rest:
            try:
                more = self._socket.recv(1 << 16)
            except ConnectionError:
                more = b""
            if not more:
                return None
            self._rest += more
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def _skip(self, count: int) -> None:
        while len(self._rest) < count:
            self._rest += self._socket.recv(1 << 16)
        self._rest = self._rest[count:]


class Envoy:
    """A running Envoy.

    Args:
        directory: with its socket, and its route table as a file.
        make: the resource of a table.
    """

    def __init__(
        self, directory: Path, make: Callable[[RouteTable], dict[str, Any]] = configuration
    ) -> None:
        self._directory = directory
        self._make = make
        self._version = 0
        self._connections: list[Connection | None] = [None] * AT_ONCE

    def load(self, table: RouteTable) -> None:
        """Replace the route table, and wait until it is in force."""
        self._version += 1
        resource = self._make(table)
        resource["virtual_hosts"].append(_probe(self._version))
        text = json.dumps({"version_info": str(self._version), "resources": [resource]})
        scratch = self._directory / "routes.new"
        scratch.write_text(text)
        scratch.rename(self._directory / "routes.json")
        log, until = self._directory / "log", time.monotonic() + 60
        said = log.stat().st_size
        while self.probe() != f"v{self._version}":
            complaint = log.read_text()[said:]
            assert "failed" not in complaint, f"Envoy does not take the table: {complaint[-800:]}"
            assert time.monotonic() < until, "Envoy does not take the table, and does not say why"
            time.sleep(0.002)

    @property
    def address(self) -> Path:
        """The Unix socket at which it listens."""
        return self._directory / "listen"

    def probe(self) -> str | None:
        """The version in force."""
        try:
            [answer] = self.ask([f"GET / HTTP/1.1\r\nHost: {PROBE}\r\n\r\n".encode()])
        except OSError:
            self.close()
            return None
        return answer.route

    def close(self) -> None:
        for index, connection in enumerate(self._connections):
            if connection:
                connection.close()
            self._connections[index] = None

    def _connection(self, index: int) -> Connection:
        found = self._connections[index]
        if found is None:
            found = self._connections[index] = Connection(self._directory / "listen")
        return found

    def ask(self, requests: Sequence[bytes]) -> list[Answer]:
        """The answers to requests, which must be whole; many connections share them."""
        answers: list[Answer] = []
        while len(answers) < len(requests):
            batch = requests[len(answers) : len(answers) + AT_ONCE]
            for index, request in enumerate(batch):
                self._connection(index).send(request)
            for index, request in enumerate(batch):
                connection = self._connection(index)
                answer = connection.answer(head_only=request.startswith(b"HEAD "))
                answers.append(answer)
                if answer.closed:
                    connection.close()
                    self._connections[index] = None
        return answers


@contextmanager
def envoy(
    program: Path,
    directory: Path,
    *,
    ports: Mapping[str, int] | None = None,
    prefix: Sequence[str] = (),
    filters: Sequence[Mapping[str, Any]] = (),
    make: Callable[[RouteTable], dict[str, Any]] = configuration,
    clusters: Sequence[Mapping[str, Any]] = (),
    manager: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Envoy]:
    """An Envoy with an empty route table.

    Args:
        program: the binary.
        directory: for its socket, its log and its configuration.
        ports: of the servers on loopback that clusters consist of, by the cluster's name.
        prefix: a command that runs another, in a network namespace for one.
        filters: before the router.
        make: the resource of a table.
        clusters: further ones.
        manager: further fields of the connection manager.
    """
    running = Envoy(directory, make)
    (directory / "routes.json").write_text(
        json.dumps({"resources": [configuration(RouteTable(name="routes"))]})
    )
    (directory / "envoy.json").write_text(
        json.dumps(bootstrap(directory, ports or {}, filters, clusters, manager))
    )
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [*prefix, str(program), "-c", str(directory / "envoy.json"), "--concurrency", "1",
             "--disable-hot-restart", "--log-level", "warning"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while running.probe() is None:
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < until, "Envoy does not start"
            time.sleep(0.02)
        yield running
    finally:
        running.close()
        process.kill()
        process.wait()
