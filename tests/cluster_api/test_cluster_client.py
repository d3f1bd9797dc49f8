# SPDX-License-Identifier: Apache-2.0
"""The official client against a real HTTP server: errors have their status, watches their lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runtime.cluster.api import ApiError
from runtime.cluster.client import Cluster

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers as it is told, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Answer = lambda _handler: None
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.server.answer(self)

    do_GET = do_PATCH = do_POST = do_DELETE = _any  # noqa: N815 - as the library calls them

    def log_message(self, *_: Any) -> None: ...


def says(status: int, body: Any) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Cluster:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return Cluster.by_kubeconfig(path)


def test_request_carries_its_query_and_the_token(server: Server, cluster: Cluster) -> None:
    server.answer = says(200, {"items": []})
    assert cluster.get("/api/v1/pods", fieldSelector="spec.nodeName=a", limit=5) == {"items": []}
    method, path, headers, _ = server.asked[0]
    assert (method, path) == ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Da&limit=5")
    assert {key.lower(): value for key, value in headers.items()}[
        "authorization"
    ] == "Bearer secret"


@pytest.mark.parametrize("status", [401, 403, 404, 409, 410, 422, 500])
def test_refusal_has_its_status_and_the_servers_words(
    server: Server, cluster: Cluster, status: int
) -> None:
    server.answer = says(status, {"kind": "Status", "message": "so it is"})
    for ask in (
        lambda: cluster.get("/x"),
        lambda: cluster.patch("/x", {}),
        lambda: list(cluster.events("/x")),
    ):
        with pytest.raises(ApiError, match="so it is") as caught:
            ask()
        assert caught.value.status == status
    assert caught.value.is_expired is (status == 410)


def test_refusal_that_is_no_json_is_told_as_it_is(server: Server, cluster: Cluster) -> None:
    server.answer = says(404, b"404 page not found\n")
    with pytest.raises(ApiError, match="404 page not found"):
        cluster.get("/apis/none")


def test_watch_gives_whole_lines_however_they_are_cut(server: Server, cluster: Cluster) -> None:
    events = [{"type": "ADDED", "object": {"name": "ä" * count}} for count in (1, 500, 70_000)]
    data = b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for start in range(0, len(data), 777):
            handler.wfile.write(data[start : start + 777])
            handler.wfile.flush()

    server.answer = answer
    assert list(cluster.events("/api/v1/pods", resourceVersion="1")) == events
    assert "watch=true" in server.asked[0][1]


def test_nobody_answers(server: Server, cluster: Cluster) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ApiError, match="does not answer") as caught:
        cluster.get("/api/v1/pods")
    assert caught.value.status == 0


def test_patch_says_what_kind_it_is(server: Server, cluster: Cluster) -> None:
    server.answer = says(200, {})
    cluster.patch("/a", {"x": None})
    cluster.patch("/b", {"x": 1}, kind="apply")
    kinds = [{k.lower(): v for k, v in asked[2].items()}["content-type"] for asked in server.asked]
    assert kinds == ["application/merge-patch+json", "application/apply-patch+yaml"]
    assert json.loads(server.asked[0][3]) == {"x": None}
    assert "fieldManager=kmesh" in server.asked[1][1]
