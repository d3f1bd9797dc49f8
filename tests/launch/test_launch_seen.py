# SPDX-License-Identifier: Apache-2.0
"""What an operator sees of a daemon's enhanced path: hits, metrics, explained requests, access log."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.launch.conftest import until
from tests.launch.test_launch_enhanced import BY_PATH, Mesh, mesh, route

__all__ = ["mesh"]
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
WEB = "10.96.0.10"


def rows(mesh: Mesh) -> dict[str, Any]:
    """The routes of web, by what they match."""
    answer = json.loads(mesh.node.kmeshctl("routes", "--service", "web", "--output", "json"))
    return {row["match"]: row for row in answer["routes"]}


def hits(mesh: Mesh) -> list[int]:
    return sorted(row["counts"]["hits"] for row in rows(mesh).values())


def test_hits_metrics_and_log_tell_of_known_requests(mesh: Mesh) -> None:
    client = mesh.client()
    number = client("connect", WEB)
    for _ in range(10):
        assert client("ask", number, "/green/1")[0] == client("ask", number, "/x")[0] == 200
        assert client("ask", number, "/x")[0] == 200
    until(lambda: hits(mesh) == [10, 20], "30 requests are not counted")
    text = mesh.node.kmeshctl("routes", "--service", "web")
    assert re.search(r"\bHITS\b.*\b5XX\s+P50\s+P99", text)
    assert re.search(r"\bkernel\s+20\b", text)
    assert re.search(r"\d+ % kernel", text)
    status, metrics = mesh.node.http("/status/metric", 15020)
    assert status == 200
    counted = re.findall(r"kmesh_http_requests_total{(.*)} ([\d.]+)", str(metrics))
    assert sum(float(value) for _, value in counted) == 30
    assert all('code_class="2xx"' in labels for labels, _ in counted)
    assert "sent by the kernel" in mesh.node.kmeshctl("status")


def test_requests_are_in_the_log_of_the_daemon(mesh: Mesh) -> None:
    mesh.daemon.kill()
    said = mesh.node.path / "stdout"
    mesh.daemon = mesh.node.daemon(
        "--mode", "enhanced", prefix=("sh", "-c", f'exec "$@" >>{said}', "sh")
    ).wait_ready()
    client = mesh.client()
    mesh.node.kmeshctl("monitoring", "--accesslog", "on")
    assert client("ask", client("connect", WEB), "/green/logged?secret=1")[0] == 200
    until(lambda: 'path="/green/logged"' in said.read_text(), "there is no line")
    (line,) = [one for one in said.read_text().splitlines() if "/green/logged" in one]
    assert "status=200" in line
    assert "dst.service=web." in line
    assert "secret" not in line


def test_counts_go_on_over_new_routes_and_a_new_daemon(mesh: Mesh) -> None:
    client = mesh.client()
    number = client("connect", WEB)
    for _ in range(5):
        client("ask", number, "/green/1")
    until(lambda: hits(mesh) == [0, 5], "5 requests are not counted")
    mesh.node.write(route(("/new", "web"), ("/green", "green"), ("/", "web")), "route.yaml")
    until(lambda: hits(mesh) == [0, 0, 5], "the new route does not come, or counts went")
    client("ask", number, "/new/1")
    mesh.daemon.kill()
    client("ask", number, "/new/1")
    mesh.start()
    until(lambda: hits(mesh) == [0, 2, 5], "the counts are others after a restart")
    mesh.node.write(BY_PATH, "route.yaml")
    until(lambda: hits(mesh) == [0, 5], "the counts of a route that is gone are still there")


def test_a_request_is_explained_and_sent(mesh: Mesh) -> None:
    client = mesh.client()  # that somebody is managed
    assert client("ask", client("connect", WEB), "/green")[0] == 200
    until(lambda: sum(hits(mesh)) == 1, "the request is not counted")
    text = mesh.node.kmeshctl("explain", "--service", "web", "--", "GET", "/green/1")
    assert "to an endpoint" in text
    assert "nothing was sent" in text
    assert sum(hits(mesh)) == 1
    answer = json.loads(
        mesh.node.kmeshctl(
            "explain", "--service", "web", "--send", "--output", "json", "--", "GET", "/green/1"
        )
    )
    assert answer["live"]["status"] == 200
    assert answer["differs"] == []
    assert answer["clusters"][0]["endpoints"][0]["address"] in answer["live"]["endpoint"]
    until(lambda: sum(hits(mesh)) == 2, "the request that was sent is not counted")
