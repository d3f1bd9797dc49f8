# SPDX-License-Identifier: Apache-2.0
"""The plugin's program and the daemon's end of its socket, as a container runtime sees them."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.cni.request import CniRequest, RequestError
from runtime.cni.server import CniServer
from runtime.compile.native import PROGRAMS, compile_program
from runtime.errors import KmeshError

ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=uid-1"
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "dns": {}}


@pytest.fixture(scope="session")
def program(checkout: Path) -> Path:
    (plugin,) = (each for each in PROGRAMS if each.name == "kmesh-cni")
    compile_program(plugin, checkout / "build" / "bin")
    return checkout / "build" / "bin" / "kmesh-cni"


class Runtime:
    """Calls the plugin as container runtimes do."""

    def __init__(self, program: Path, socket_path: Path) -> None:
        self.program = program
        self.socket = socket_path
        self.environment = {
            "CNI_CONTAINERID": "box",
            "CNI_NETNS": "/var/run/netns/cni-1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": ARGS,
        }

    def config(self, **more: Any) -> str:
        whole = {
            "cniVersion": "1.0.0",
            "name": "net",
            "type": "kmesh-cni",
            "socket": str(self.socket),
            "prevResult": RESULT,
            **more,
        }
        return json.dumps({key: value for key, value in whole.items() if value is not None})

    def raw(self, command: str, config: str) -> tuple[int, str]:
        done = subprocess.run(
            [self.program],
            input=config,
            env={**self.environment, **({"CNI_COMMAND": command} if command else {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    def __call__(self, command: str, **more: Any) -> tuple[int, Any]:
        status, out = self.raw(command, self.config(**more))
        return status, json.loads(out) if out else None


@pytest.fixture
def runtime(program: Path, tmp_path: Path) -> Runtime:
    return Runtime(program, tmp_path / "cni.sock")


@contextmanager
def daemon(runtime: Runtime, handle: Callable[[CniRequest], str]) -> Iterator[CniServer]:
    server = CniServer(runtime.socket, handle)
    try:
        yield server
    finally:
        server.close(remove=False)


def test_add_tells_the_daemon_and_gives_its_predecessors_result(runtime: Runtime) -> None:
    seen: list[CniRequest] = []

    def handle(request: CniRequest) -> str:
        seen.append(request)
        return ""

    with daemon(runtime, handle):
        assert runtime("ADD") == (0, RESULT)
        assert runtime("CHECK") == (0, None)
        assert runtime("DEL", prevResult=None) == (0, None)
    assert [request.command for request in seen] == ["ADD", "CHECK", "DEL"]
    assert seen[0] == CniRequest(
        command="ADD",
        container="box",
        netns=Path("/run/netns/cni-1"),
        namespace="shop",
        pod="web-0",
        uid="uid-1",
    )


@pytest.mark.parametrize("wrong", ["no room", KmeshError("no room"), RuntimeError("a fault")])
def test_only_check_fails_when_something_is_wrong(runtime: Runtime, wrong: Any) -> None:
    def handle(_request: CniRequest) -> str:
        if isinstance(wrong, Exception):
            raise wrong
        return str(wrong)

    with daemon(runtime, handle):
        assert runtime("ADD") == (0, RESULT)
        assert runtime("DEL") == (0, None)
        status, error = runtime("CHECK")
    assert status == 1
    assert error["code"] == 11
    assert "kmesh-cni" in error["msg"]


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
def test_no_daemon_is_no_failure(runtime: Runtime, command: str) -> None:
    assert runtime(command) == (0, RESULT if command == "ADD" else None)


def test_add_waits_for_a_daemon_that_is_being_restarted(runtime: Runtime) -> None:
    """Its socket is there, and nobody behind it."""
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(runtime.socket))
    dead.close()
    seen: list[str] = []
    answer: list[tuple[int, Any]] = []
    caller = threading.Thread(target=lambda: answer.append(runtime("ADD")))
    caller.start()
    caller.join(timeout=0.5)
    assert caller.is_alive(), "it did not wait"

    def handle(request: CniRequest) -> str:
        seen.append(request.command)
        return ""

    with daemon(runtime, handle):
        caller.join(timeout=20)
    assert answer == [(0, RESULT)]
    assert seen == ["ADD"]


def test_daemon_that_dies_in_the_middle_fails_no_pod(runtime: Runtime) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(runtime.socket))
    listener.listen()

    def drop() -> None:
        connection, _ = listener.accept()
        connection.recv(10)
        connection.close()

    thread = threading.Thread(target=drop)
    thread.start()
    assert runtime("ADD") == (0, RESULT)
    thread.join()
    listener.close()


def test_version_needs_no_configuration(runtime: Runtime) -> None:
    status, out = runtime.raw("VERSION", "")
    assert status == 0
    assert {"0.4.0", "1.0.0", "1.1.0"} <= set(json.loads(out)["supportedVersions"])


@pytest.mark.parametrize(
    ("command", "changes", "code"),
    [
        ("ADD", {"cniVersion": "0.2.0"}, 1),
        ("ADD", {"cniVersion": None}, 6),
        ("ADD", {"prevResult": None}, 7),
        ("FROB", {}, 4),
        ("", {}, 4),
    ],
)
def test_errors_are_the_specifications(
    runtime: Runtime, command: str, changes: Any, code: int
) -> None:
    status, error = runtime(command, **changes)
    assert status == 1
    assert error["code"] == code


_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    result=st.dictionaries(st.text(), _values, max_size=4), before=_values, escaped=st.booleans()
)
def test_any_result_comes_out_as_it_went_in(
    runtime: Runtime, result: Any, before: Any, escaped: Any
) -> None:
    config = {"before": before, "cniVersion": "1.0.0", "prevResult": result, "socket": "/nowhere"}
    status, out = runtime.raw("ADD", json.dumps(config, ensure_ascii=escaped))
    assert status == 0
    assert json.loads(out) == result


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_broken_configuration_is_an_error_never_a_crash(runtime: Runtime, data: Any) -> None:
    whole = runtime.config(socket="/nowhere")
    cut = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.text(alphabet='{}[]":,\\ a1', max_size=6))
    text = whole[:cut] + noise + whole[cut + data.draw(st.integers(0, 3)) :]
    status, out = runtime.raw("ADD", text)
    assert status in (0, 1)
    assert out


@given(st.binary(max_size=300))
def test_no_request_breaks_the_daemon(data: bytes) -> None:
    with suppress(RequestError):
        CniRequest.parse(data)


def test_socket_is_for_its_owner_only(runtime: Runtime) -> None:
    with daemon(runtime, lambda _request: ""):
        assert runtime.socket.stat().st_mode & 0o777 == 0o600
