# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of requests: metrics, status, access log."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime.cli.ctl_http import http_lines
from runtime.kernel.gate import Gate
from runtime.launch.http_seen import HttpSeen
from runtime.model.http import RouteTable, VirtualHost
from runtime.telemetry.accesslog import AccessLog
from runtime.telemetry.directory import Directory
from tests.dataplane.enhanced_stage import PORT, Stage, to
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root
HOST = "shop.example"
ROUTES = RouteTable(
    name="seen",
    virtual_hosts=(
        VirtualHost("shop:80", (f"{HOST}:80", "*"), (to("/a", "a", name="first"), to("/b", "b"))),
    ),
)


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def seen(stage: Stage, written: io.StringIO) -> Iterator[HttpSeen]:
    stage.serve("a", "b")
    stage.route(ROUTES)
    log = AccessLog(Directory(), stream=written)
    made = HttpSeen(Directory(), log)
    made.attach(stage.ports.stats, passed=stage.path.gate_counters, gate=stage.place.socket)
    try:
        yield made
    finally:
        made.close()
        log.close()


def samples(seen: HttpSeen) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(seen.metrics)
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str
) -> float:
    wanted = set(labels.items())
    return sum(value for (each, has), value in found.items() if each == name and wanted <= set(has))


def test_metrics_are_the_requests_and_only_grow(stage: Stage, seen: HttpSeen) -> None:
    before = samples(seen)
    stage.ask(["/a/1", "/b/1", "/a/2"] * 10 + ["/elsewhere"])
    name = "kmesh_http_requests_total"

    def grown(name: str, **labels: str) -> float:
        return total(samples(seen), name, **labels) - total(before, name, **labels)

    wait_for(lambda: grown(name) == 31, "all are counted")
    assert grown(name, service=HOST, route="first", code_class="2xx") == 20
    assert grown(name, service=HOST, route="prefix /b", code_class="2xx") == 10
    assert grown(name, service="-", code_class="4xx", by="gate") == 1
    assert grown(name, service=HOST, by="kernel") == grown("kmesh_http_taken_total") >= 25
    assert grown("kmesh_http_responses_total", service=HOST, code="200") == 30
    seconds = "kmesh_http_request_duration_seconds"
    assert grown(f"{seconds}_count", service=HOST, until="end") == 30
    assert grown(f"{seconds}_bucket", service=HOST, until="head", le="+Inf") == 30
    assert grown("kmesh_http_response_bytes_total", service=HOST) > 30 * 80
    # A route that goes takes its series with it; those that stay go on.
    kept = RouteTable(
        name="seen",
        virtual_hosts=(VirtualHost("shop:80", (f"{HOST}:80", "*"), (to("/b", "b"),)),),
    )
    stage.route(kept)
    after = samples(seen)
    assert total(after, name, route="first") == 0
    assert (
        total(after, name, service=HOST, route="prefix /b")
        == total(before, name, service=HOST, route="prefix /b") + 10
    )


def test_status_says_why_messages_were_passed(stage: Stage, seen: HttpSeen) -> None:
    before = {each["reason"]: each["count"] for each in (seen.status() or {})["passed"]}
    number = stage.client("connect", VIP4, PORT)
    stage.client("send", number, "GET /a/1 HT")
    stage.client("send", number, "TP/1.1\r\nHost: x\r\n\r\n")
    assert stage.client("read", number)[0] == 200
    facts = seen.status()
    assert facts
    after = {each["reason"]: each["count"] for each in facts["passed"]}
    assert after["not_whole"] == before["not_whole"] + 1
    assert after["not_idle"] == before["not_idle"] + 1
    text = "\n".join(f"{name} {value}" for name, value in http_lines(facts))
    assert "passed to the gate: not one whole plain HTTP/1.1 request in one piece" in text
    assert "passed to the gate: an earlier request of the connection was not answered yet" in text


def test_hits_stand_beside_their_routes(stage: Stage, seen: HttpSeen) -> None:
    before = seen.hits()["seen", "shop:80", 1]["hits"]
    stage.ask(["/a/1"] * 5)
    wait_for(lambda: seen.hits()["seen", "shop:80", 1]["hits"] == before + 5, "5 are counted")
    found = seen.hits()["seen", "shop:80", 1]
    assert found["by"]["kernel"] + found["by"]["gate"] == found["hits"]
    assert found["p50_ms"] <= found["p99_ms"]


def lines(seen: HttpSeen, written: io.StringIO, count: int) -> list[str]:
    assert seen._log is not None
    log = seen._log

    def come() -> bool:
        log.read()
        return written.getvalue().count("\n") >= count

    wait_for(come, f"{count} lines")
    return written.getvalue().splitlines()


def test_requests_are_written_down_by_whoever_served_them(
    stage: Stage, seen: HttpSeen, written: io.StringIO
) -> None:
    number = stage.client("connect", VIP4, PORT)
    stage.client("ask", number, "/a/0")
    seen.switch_access_log(one_in=1)
    stage.client("ask", number, "/a/1?secret=1")
    stage.client("send", number, "GET /b/2 HT")
    stage.client("send", number, "TP/1.1\r\nHost: x\r\n\r\n")
    assert stage.client("read", number)[0] == 200
    stage.client("send", number, f"GET /a/{'x' * 300} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert stage.client("read", number)[0] == 200
    stage.client("ask", number, "/elsewhere")
    first, second, third, fourth = lines(seen, written, 4)
    assert re.fullmatch(
        r"accesslog: \S+ \S+ \+0000 UTC src\.addr=\S+, src\.workload=-, src\.namespace=-, "
        r"src\.netns=\d+, dst\.addr=127\.0\.0\.1:\d+, "
        rf"dst\.service={VIP4}:80, dst\.workload=-, dst\.namespace=-, "
        r"start_time=\S+ \S+ \+0000 UTC, direction=OUTBOUND, protocol=HTTP, "
        r'method=GET, path="/a/1", status=200, route="first", served_by=kernel, '
        r"sent_bytes=\d+, received_bytes=\d+, first_byte=\d+\.\d{3}ms, duration=\d+\.\d{3}ms",
        first,
    )
    assert 'path="/b/2", status=200, route="prefix /b", served_by=gate' in second
    assert re.search(r'path="/a/x{100,160}\.\.\.", status=200', third)
    assert 'path="/elsewhere", status=404, route="-", served_by=gate' in fourth
    assert "dst.addr=-" in fourth
    seen.switch_access_log(one_in=0)
    stage.client("ask", number, "/a/1")
    stage.ask(["/b/9"])
    assert len(lines(seen, written, 4)) == 4
    # The kernel keeps nothing of requests for a log that is not there.
    heads = stage.path.maps["taken_heads"]
    wait_for(lambda: not list(heads.keys()), "what was kept of requests is gone")


def test_one_in_so_many(stage: Stage, seen: HttpSeen, written: io.StringIO) -> None:
    seen.switch_access_log(one_in=10)
    stage.ask(["/a/1"] * 40)
    assert len(lines(seen, written, 4)) == 4


def test_nobody_who_reads_the_log_is_nobodys_trouble(stage: Stage, seen: HttpSeen) -> None:
    dropped = stage.ports.stats.log_dropped()
    seen.close()
    with Gate(stage.place.socket) as gate:
        gate.log_requests(one_in=1)
    try:
        assert stage.ask(["/a/1"] * 50) == ["a"] * 50
        wait_for(lambda: stage.ports.stats.log_dropped() == dropped + 50, "50 lines dropped")
    finally:
        with Gate(stage.place.socket) as gate:
            gate.log_requests(one_in=0)
