# SPDX-License-Identifier: Apache-2.0
"""The enhanced path in one connection: its requests go to different services, and who served each is told.

Who served a request is what the daemon's access log says of it, its time what the client measured.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from ci.demo import tell
from ci.demo.mesh_story import check
from ci.demo.near_story import tell_near
from ci.demo.pods import Pods
from ci.demo.stage import KMESH, KMESHCTL, DemoError, Stage
from ci.demo.talker import Talker, tell_race

_FILE = Path(__file__).with_name("shop.yaml")
_SERVERS = {
    "shop": "10.244.2.1",
    "reviews": "10.244.2.2",
    "reviews-v2": "10.244.2.3",
    "orders": "10.244.2.4",
}
_ENVOY = KMESH.with_name("envoy")
_SHOP, _PORT = "10.96.0.10:80", 8080
_DIRECT = f"{_SERVERS['shop']}:{_PORT}"
_LARGE = 1 << 20
_ROUNDS = 500
# Method, path, headers, bytes of the body; and who is to answer.
_REQUESTS: tuple[tuple[str, str, dict[str, str], int, str], ...] = (
    ("GET", "/", {}, 0, "shop"),
    ("GET", "/reviews/1", {}, 0, "reviews"),
    ("GET", "/reviews/1", {"end-user": "jason"}, 0, "reviews-v2"),
    ("POST", "/orders", {}, 100, "orders"),
    ("GET", "/cart", {}, 0, "shop"),
    ("GET", "/reviews/2", {}, 0, "reviews"),
    ("GET", "/catalogue", {}, 0, "301"),
    ("GET", "/legacy/1", {}, 0, "503"),
    ("POST", "/orders", {}, _LARGE, "orders"),
)
_WAYS = {
    "direct": "straight to the endpoint",
    "routed": "the service, routed by Kmesh",
    "two_envoys": "two Envoys, as sidecars are",
}
Json = dict[str, Any]


def tell_requests(stage: Stage) -> Json:
    """Tell it.

    Returns:
        what was seen, ready for JSON.

    Raises:
        DemoError: something was not as told.
    """
    tell.step("Four services, and an HTTPRoute")
    pods = Pods(stage, _SERVERS, port=_PORT)
    shutil.copy(_FILE, stage.services)
    tell.say(
        "A client and the servers have a network namespace each, joined by a veth pair: no packet "
        f"leaves this machine. What is routed stands in ci/demo/{_FILE.name}."
    )
    stage.start_daemon()
    client = Talker(stage, pods.client)
    requests = _one_connection(stage, client)
    compared = _compare(client, pods.start_sidecars(_ENVOY) if _ENVOY.exists() else {})
    client.end()
    stage.stop_daemon()
    near = tell_near(stage, pods, _DIRECT)
    status = stage.stop_daemon()
    left = [str(path) for path in stage.leftovers()]
    check(not status and not left, "the daemon ended, and nothing of it is left", f"left: {left}")
    return {"mode": "enhanced", "requests": requests, "comparison": compared, "near": near}


def _asked(request: tuple[str, str, dict[str, str], int, str]) -> Json:
    method, path, headers, size, _ = request
    return {"method": method, "path": path, "headers": headers, "size": size, "host": "shop"}


def _one_connection(stage: Stage, client: Talker) -> list[Json]:
    tell.step("One keep-alive connection to the shop")
    stage.run([str(KMESHCTL), "monitoring", "--accesslog", "on"])
    for request in _REQUESTS[:4]:  # upstream connections are made by the first that needs them
        client("ask", _SHOP, _asked(request))
    before = len(_lines(stage, at_least=4))
    answers = [client("ask", _SHOP, _asked(request)) for request in _REQUESTS]
    lines = _lines(stage, at_least=before + len(_REQUESTS))[before:]
    stage.run([str(KMESHCTL), "monitoring", "--accesslog", "off"])
    rows = [
        _row(request, answer, line)
        for request, answer, line in zip(_REQUESTS, answers, lines, strict=True)
    ]
    _table(rows)
    for row in rows:
        if row["answered_by"] != row["expected"]:
            raise DemoError(f"{row['request']} was answered by {row['answered_by']}: {row}")
    check(
        len({answer["local"] for answer in answers}) == 1,
        "all on one connection",
        "there were several",
    )
    number = sum(row["served_by"] == "kernel" for row in rows)
    check(number > 0, f"{number} of {len(rows)} were sent on by the kernel", "none by the kernel")
    check(
        rows[-1]["served_by"] == "gate",
        "the rest by the gate, which has the same tables: it answers what needs no endpoint, and "
        "carries large bodies",
        f"{rows[-1]}",
    )
    return rows


def _lines(stage: Stage, *, at_least: int) -> list[str]:
    """The access log's lines of requests, in their order."""

    def found() -> list[str]:
        return [line for line in stage.access_log if "protocol=HTTP" in line]

    stage.wait_for(lambda: len(found()) >= at_least, "the access log does not tell of all requests")
    return found()


def _row(request: tuple[str, str, dict[str, str], int, str], answer: Json, line: str) -> Json:
    method, path, headers, size, expected = request
    if f'method={method}, path="{path}"' not in line:
        raise DemoError(f"the access log has another request in place of {method} {path}: {line}")
    told = dict(re.findall(r'([\w.]+)="?([^",]*)', line))
    status = answer["status"]
    return {
        "request": f"{method} {path}",
        "headers": headers,
        "body_bytes": size,
        "status": status,
        "route": told["route"],
        "endpoint": told["dst.addr"],
        "answered_by": json.loads(answer["body"])["server"] if status == 200 else str(status),
        "expected": expected,
        "served_by": told["served_by"],
        "reason": answer["headers"].get("x-kmesh-reason", ""),
        "us": round(answer["us"], 1),
    }


def _table(rows: list[Json]) -> None:
    form = "{:<34} {:>4}  {:<18} {:<16} {:<8} {:>9}"
    tell.output([form.format("REQUEST", "", "ROUTE", "ENDPOINT", "BY", "µs")])
    for row in rows:
        extra = " ".join(f"{name}: {value}" for name, value in row["headers"].items())
        body = f"{row['body_bytes']:,} B" if row["body_bytes"] else ""
        words = " ".join(filter(None, (row["request"], extra, body)))
        tell.row(
            form.format(
                words,
                row["status"],
                row["route"],
                row["endpoint"],
                row["served_by"],
                f"{row['us']:,.0f}",
            ),
            bright=row["served_by"] == "kernel",
        )
        if row["reason"]:
            tell.output([f"  {row['reason']}"])


def _compare(client: Talker, sidecars: Json) -> Json:
    tell.step("How fast")
    places = {"direct": _DIRECT, **sidecars, "routed": _SHOP}
    took = client("race", places, _asked(_REQUESTS[0]), _ROUNDS)
    return {"requests": _ROUNDS, **tell_race(took, _WAYS, rounds=_ROUNDS)}
