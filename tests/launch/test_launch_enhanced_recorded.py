# SPDX-License-Identifier: Apache-2.0
"""What a real Istiod sent, in a daemon of the enhanced path with a node waypoint: each request as its route says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dataplane.world import Agent
from tests.launch.actors import add_addresses, talking
from tests.launch.conftest import Node, until
from tests.launch.test_launch_enhanced import ASKER
from tests.waypoint.bookstore import ENDPOINTS_THERE, RATINGS, REVIEWS, V1, V2, V3

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

CLIENT = "10.244.0.50"
_CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bookstore(node: Node, all_objects: Path, gate_program: Path, tmp_path: Path) -> Iterator[Node]:
    """The daemon serves what was recorded; its pods answer with what they were asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "kmesh-gate").symlink_to(gate_program)
    node.environment |= {"KMESH_OBJECTS": str(all_objects), "KMESH_PROGRAMS": str(programs)}
    places = sorted({place.split(":")[0] for place in ENDPOINTS_THERE} | {CLIENT})
    add_addresses(node, *(place for place in places if place not in ("10.244.0.11", "10.244.0.12")))
    node.start([sys.executable, "-m", "tests.launch.serving", *ENDPOINTS_THERE])
    recording = str(_CHECKOUT / "tests/data/xds/bookstore")
    node.start([sys.executable, "-m", "tests.cluster.recorded_istiod", recording, "{}"])
    daemon = node.daemon(
        *("--mode", "enhanced", "--node", "node1", "--node-waypoint", "auto"),
        source="istiod:127.0.0.1:15010",
    ).wait_ready()
    until(lambda: node.ask("status")["node_waypoint"].get("accepted"), "Envoy does not take it")
    yield node
    daemon.kill()
    node.kmesh("cleanup")


@pytest.fixture
def client(bookstore: Node) -> Agent:
    run = [sys.executable, "-m", "runtime.cli.main", "exec", "--", sys.executable, ASKER]
    return talking(bookstore, run)


class Reply:
    def __init__(self, answer: list[Any]) -> None:
        self.status, self.headers, self.body = answer

    @property
    def told(self) -> Any:
        return json.loads(self.body)


def test_each_recorded_route_does_what_it_says_on_one_connection(
    bookstore: Node, client: Agent
) -> None:
    number = client("connect", REVIEWS, 9080)

    def ask(path: str, method: str = "GET", **headers: str) -> Reply:
        named = {"host": "reviews", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return Reply(client("full", number, method, path, named))

    for _ in range(3):
        assert ask("/x", x_user="jason").told["at"] == V2
        assert ask("/legacy/a?b=c").told["path"] == "/modern/a?b=c"
        moved = ask("/api/v1/reviews/7")
        assert (moved.status, moved.headers["location"]) == (301, "http://reviews/reviews/")
        denied = ask("/admin", method="DELETE")
        assert (denied.status, denied.body) == (403, "not here")
        assert ask("/x", x_chaos="abort").status == 503
        assert ask("/x").told["at"] in {V1, V2, V3}
    rows = {row["route"]: row for row in bookstore.ask("routes", "--service", "reviews")["routes"]}
    assert rows["rewritten"]["place"] == "waypoint"
    assert rows["admin"]["place"] == rows["old-path"]["place"] == "kernel"


def test_one_key_always_finds_one_endpoint(client: Agent) -> None:
    number = client("connect", RATINGS, 9080)
    found = [
        {
            Reply(client("full", number, "GET", "/", {"host": "ratings", "x-user": user})).told[
                "at"
            ]
            for _ in range(4)
        }
        for user in "abcdef"
    ]
    assert all(len(places) == 1 for places in found)
