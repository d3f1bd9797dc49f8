# SPDX-License-Identifier: Apache-2.0
"""Telemetry of a real daemon: metrics, access log, its switches, restarts, and nothing left."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.launch.conftest import Daemon, Node
from tests.launch.test_launch_daemon import Shell

pytestmark = pytest.mark.root
LINE = re.compile(
    r"accesslog: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,9})? \+0000 UTC "
    r"src\.addr=[\d.]+:\d+, src\.workload=[^,]+, src\.namespace=[^,]+, "
    r"dst\.addr=10\.244\.0\.1[12]:8080, dst\.service=(?P<service>[^,]+), "
    r"dst\.workload=(?P<workload>[^,]+), dst\.namespace=default, "
    r"start_time=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,9})? \+0000 UTC, "
    r"direction=OUTBOUND, state=BPF_TCP_(?P<state>ESTABLISHED|CLOSE), "
    r"sent_bytes=\d+, received_bytes=\d+, packet_loss=\d+, retransmissions=\d+, "
    r"srtt=\d+us, min_rtt=\d+us, duration=\d+(\.\d+)?ms"
)


def sums(node: Node) -> dict[str, float]:
    """Every metric of connections, over all labels."""
    status, text = node.http("/status/metric", 15020)
    assert status == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def told(node: Node, name: str, value: float) -> None:
    node.until(lambda: sums(node).get(name) == value, f"{name} did not become {value}")


def with_output(node: Node, *arguments: str) -> tuple[Daemon, Path]:
    """A daemon whose standard output goes into a file."""
    path = node.path / "stdout"
    script = f'exec "$@" >>{path}'
    return node.daemon(*arguments, prefix=("sh", "-c", script, "sh")), path


def test_connections_are_counted(node: Node) -> None:
    node.daemon().wait_ready()
    assert sum(node.answers(10).values()) == 10
    told(node, "kmesh_tcp_connections_closed_total", 10)
    found = sums(node)
    assert found["kmesh_tcp_connections_opened_total"] == 10
    assert found["kmesh_tcp_workload_connections_opened_total"] == 10
    assert found["kmesh_tcp_sent_bytes_total"] > 10 * len("GET / HTTP/1.1\r\n")
    assert found["kmesh_tcp_received_bytes_total"] > found["kmesh_tcp_sent_bytes_total"]
    assert found["kmesh_telemetry_events_lost_total"] == 0
    text = node.http("/status/metric", 15020)[1]
    series = next(
        each for each in text.splitlines() if each.startswith("kmesh_tcp_sent_bytes_total{")
    )
    assert 'destination_service_name="web"' in series
    assert 'reporter="source"' in series


def test_the_access_log_is_switched_while_the_daemon_runs(node: Node) -> None:
    daemon, output = with_output(node)
    daemon.wait_ready()
    node.answers(3)
    told(node, "kmesh_tcp_connections_closed_total", 3)
    assert output.read_text() == ""
    assert json.loads(node.http("/accesslog")[1]) == {"enabled": False}
    assert "access log on" in node.kmeshctl("monitoring", "--accesslog", "on")
    assert json.loads(node.http("/accesslog")[1]) == {"enabled": True}
    node.answers(4)
    node.until(lambda: len(output.read_text().splitlines()) == 8, "no lines of the access log")
    matches = [LINE.fullmatch(each) for each in output.read_text().splitlines()]
    assert all(matches), output.read_text()
    states = [found["state"] for found in matches if found]
    assert sorted(states) == ["CLOSE"] * 4 + ["ESTABLISHED"] * 4
    assert {found["service"] for found in matches if found} == {"web.default.svc.cluster.local"}
    curl = ["curl", "-s", "-X", "POST", "http://127.0.0.1:15200/accesslog?enable=false"]
    assert json.loads(node.check(curl)) == {"enabled": False}
    node.answers(2)
    told(node, "kmesh_tcp_connections_closed_total", 9)
    assert len(output.read_text().splitlines()) == 8
    facts = json.loads(node.kmeshctl("monitoring", "--output", "json"))
    assert (facts["on"], facts["access_log"], facts["lost"]) == (True, False, 0)


def test_it_can_be_turned_off(node: Node) -> None:
    daemon = node.daemon("--no-telemetry", "--mode", "compat").wait_ready()
    assert sum(node.answers(5).values()) == 5
    assert "off: turned off (--no-telemetry)" in node.kmeshctl("status")
    assert "telemetry: off (turned off (--no-telemetry))" in daemon.log
    assert sums(node).get("kmesh_tcp_connections_opened_total") is None
    done = node.call([sys.executable, "-m", "runtime.cli.ctl", "monitoring", "--accesslog", "on"])
    assert done.returncode != 0
    assert "telemetry is off" in done.stderr
    assert not (node.pins / "telemetry").exists()


def test_the_next_daemon_counts_what_happened_meanwhile(node: Node) -> None:
    node.daemon().wait_ready()
    shell = Shell(node)
    assert shell.ask() in {"blue", "green"}
    told(node, "kmesh_tcp_connections_closed_total", 1)
    node.check(["kill", "-9", str(node.ask("status")["pid"])])
    node.until(lambda: node.http("/debug/ready")[0] == 0, "the daemon did not end")
    assert shell.ask() in {"blue", "green"}
    daemon = node.daemon().wait_ready()
    told(node, "kmesh_tcp_connections_closed_total", 1)  # the other is counted, and was forgotten
    assert shell.ask() in {"blue", "green"}
    told(node, "kmesh_tcp_connections_closed_total", 2)
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()
    shell.end()


def test_a_killed_daemons_telemetry_is_cleaned_up(node: Node) -> None:
    node.daemon().wait_ready().kill()
    assert (node.pins / "telemetry").is_dir()
    done = node.kmesh("cleanup")
    assert done.returncode == 0, done.stderr
    assert "telemetry" in done.stdout
    assert not node.pins.exists()
