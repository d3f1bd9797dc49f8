# SPDX-License-Identifier: Apache-2.0
"""The second half of the story: a control plane, policies, datagrams, a waypoint, and a killed daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from ci.demo import control_plane as mesh
from ci.demo import tell, waypoint
from ci.demo.stage import KMESH, DemoError, Stage

_SOURCE = ("--source", f"istiod:127.0.0.1:{mesh.PORT}", "--node", mesh.NODE)
_LOAD = 150  # requests while the daemon is killed
_DATAGRAM = """
import socket, sys
for _ in range(20):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(b"?", (sys.argv[1], int(sys.argv[2])))
        answer, sender = s.recvfrom(100)
        print(answer.decode().strip(), sender[0])
"""


def tell_mesh(stage: Stage) -> None:
    """Tell it; the daemon of the first half runs, and one runs in the end.

    Raises:
        DemoError: something was not as told.
    """
    _control_plane(stage)
    _policies(stage)
    _datagrams(stage)
    _waypoint(stage)
    _access_log(stage)
    _killed(stage)


def check(holds: bool, text: str, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise DemoError(otherwise)
    tell.good(text)


def _exec(stage: Stage, *command: str, fails: bool = False) -> list[str]:
    """A managed command, shown with what it printed."""
    argv = ["kmesh", "exec", "--", *command]
    tell.command(argv)
    done = stage.run([str(KMESH), *argv[1:]], check=not fails)
    lines = (done.stdout + done.stderr).splitlines()
    if fails and done.returncode == 0:
        raise DemoError(f"{command[0]} was answered: {lines}")
    return lines


def _counted(lines: list[str]) -> Counter[str]:
    answers = Counter(lines)
    tell.output(f"{line}  x {times}" for line, times in sorted(answers.items()))
    return answers


def _control_plane(stage: Stage) -> None:
    tell.step("A control plane instead of files")
    tell.say(
        "A small gRPC server stands in for Istiod: it sends the very responses that a real one sent "
        "for a bookstore, and a few services of this demo. Their pods are servers on this machine."
    )
    stage.stop_daemon()
    for name, address in mesh.REVIEW_PODS.items():
        stage.add_address(address)
        stage.start_backend(name, f"{address}:8080")
    for address in (mesh.FRONTEND, mesh.WEB, mesh.WAYPOINT_POD):
        stage.add_address(address)
    argv = [sys.executable, "-m", "ci.demo.control_plane"]
    stage.start_helper("the control plane", argv, says="up", log="control-plane.log")
    tell.output(line for line in stage.start_daemon(*_SOURCE) if "Start successful" in line)
    details = stage.ask("status")["sync"]["details"]
    check(details["acks"] >= 2, f"connected, {details['acks']} responses accepted", f"{details}")
    url = f"http://{mesh.REVIEWS}:9080/"
    loop = f"for i in $(seq 30); do curl -sS -m 5 --interface {mesh.FRONTEND} {url}; done"
    answers = _counted(_exec(stage, "sh", "-c", loop))
    check(
        set(answers) == set(mesh.REVIEW_PODS), "all pods of reviews answer", f"answers: {answers}"
    )


def _policies(stage: Stage) -> None:
    tell.step("Who may connect is decided in the kernel, before the application sees a byte")
    tell.say(
        "The recorded policy orders-l4 lets only pods of the namespace bookstore reach port 8080 of the "
        "orders' database. The frontend is one; a pod of another namespace is not:"
    )
    stage.add_address(mesh.ORDERS_DB)
    stage.start_backend("orders-db", f"{mesh.ORDERS_DB}:8080")
    url = f"http://{mesh.ORDERS_DB}:8080/"
    lines = _exec(stage, "curl", "-sS", "-m", "5", "--interface", mesh.FRONTEND, url)
    check(lines == ["orders-db"], "the frontend is let in", f"{lines}")
    tell.output(_exec(stage, "curl", "-sS", "-m", "5", "--interface", mesh.WEB, url, fails=True))
    stage.show(["kmeshctl", "policies"])
    found = {each["name"]: each for each in stage.ask("policies")["policies"]}
    check(found["orders-l4"]["hits"] > 0, "the other is refused; both are counted", f"{found}")


def _datagrams(stage: Stage) -> None:
    tell.step("UDP")
    tell.say(
        "Datagrams are balanced as well, also those of sockets that never connect; the answer comes "
        "from the address that was asked, as DNS clients insist."
    )
    for name, address in mesh.PODS.items():
        stage.start_backend(f"{name}-udp", f"udp/{address}:{mesh.CLOCK_PORT}")
    client = stage.directory / "datagrams.py"
    client.write_text(_DATAGRAM)
    lines = _exec(stage, sys.executable, str(client), mesh.CLOCK, str(mesh.CLOCK_PORT))
    answers = _counted(lines)
    expected = {f"{name}-udp {mesh.CLOCK}" for name in mesh.PODS}
    check(set(answers) == expected, "both answered, in the service's name", f"answers: {answers}")


def _waypoint(stage: Stage) -> None:
    tell.step("HTTP at a waypoint: an unmodified Envoy")
    tell.say(
        f"The service {mesh.CART} has a waypoint. Connections go there instead, and the kernel puts a "
        "PROXY header with the original destination and the client's identity in front."
    )
    config = stage.directory / "envoy.json"
    config.write_text(json.dumps(waypoint.config()))
    envoy = Path(sys.executable).with_name("envoy")
    argv = [str(envoy), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"]
    stage.start_helper("Envoy", argv, says="starting main dispatch loop", log="envoy.log")
    lines = _exec(stage, "curl", "-sS", "-i", "-m", "5", f"http://{mesh.CART}/")
    tell.output(line for line in lines if line)
    check("x-waypoint: demo" in lines, "Envoy routed it by the cart's own address", f"{lines}")
    lines = _exec(
        stage,
        "curl",
        "-sS",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        f"http://{mesh.CART}/admin",
    )
    tell.output(lines)
    check(lines == ["403"], "and forbids /admin", f"{lines}")
    tell.say("What the kernel does with a connection, and why:")
    told = stage.show(["kmeshctl", "explain", f"{mesh.CART}:80"])
    check("waypoint" in "\n".join(told), "explained", "explain does not know the waypoint")


def _access_log(stage: Stage) -> None:
    tell.step("Metrics and the access log, from the kernel")
    stage.show(["kmeshctl", "monitoring", "--accesslog", "on"])
    _exec(stage, "curl", "-sS", "-m", "5", f"http://{mesh.CART}/")
    stage.wait_for(lambda: any("BPF_TCP_CLOSE" in one for one in stage.access_log), "no line came")
    tell.output(stage.access_log[-1:])
    metrics = stage.run(["curl", "-s", "http://127.0.0.1:15020/status/metric"]).stdout.splitlines()
    wanted = ("kmesh_istiod_connected", "kmesh_istiod_acks_total", "kmesh_telemetry_events_total")
    tell.output(line for line in metrics if line.startswith(wanted))
    check("kmesh_istiod_connected 1.0" in metrics, "and Istiod is connected", "it is not")
    stage.run([str(KMESH.with_name("kmeshctl")), "monitoring", "--accesslog", "off"])


def _killed(stage: Stage) -> None:
    tell.step("kill -9 of the daemon, under load")
    tell.say(
        f"{_LOAD} requests through the waypoint, one after the other. Meanwhile the daemon is killed, and "
        "started again: it finds its programs and maps as they were, and takes over."
    )
    url = f"http://{mesh.CART}/"
    loop = f"for i in $(seq {_LOAD}); do curl -sS -m 5 {url} || echo failed; sleep 0.05; done"
    argv = ["kmesh", "exec", "--", "sh", "-c", loop]
    tell.command(argv)
    load = stage.start_in_background([str(KMESH), *argv[1:]])
    stage.wait_for(lambda: len(stage.ask("status")["managed"]) > 0, "the load did not start")
    tell.command(["kill", "-9", str(stage.kill_daemon())])
    stage.start_daemon(*_SOURCE)
    try:
        out, _ = load.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        raise DemoError("the load did not come to its end") from None
    answers = _counted(out.split())
    check(
        sum(answers.values()) == _LOAD and set(answers) == set(mesh.PODS),
        "not one request failed",
        f"answers: {answers}",
    )
