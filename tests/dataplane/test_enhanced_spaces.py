# SPDX-License-Identifier: Apache-2.0
"""A gate for many network namespaces, and for more than it can have."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import socket
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.kernel.gate import Gate as Conversation
from runtime.kernel.gate import GateError
from runtime.kernel.netns import netns_cookie
from runtime.launch.gate import running
from runtime.tables.enhanced_layout import Gate, GateKey
from tests.dataplane.enhanced_stage import PORT, Stage, table
from tests.dataplane.test_enhanced_handover import another_version, is_gone
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root
MANY = 1000
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1
ASK = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
connection.request("GET", "/nowhere")
print(connection.getresponse().status)
"""


def _new_namespace() -> int:
    """Of this thread; a descriptor of it."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as any_socket:
        up = struct.pack("16sH22x", b"lo", IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, up)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def namespaces(count: int) -> Iterator[list[Path]]:
    """New ones, each with a loopback; gone with the last descriptor of each."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], count + 1024), before[1]))
    handles: list[int] = []
    try:
        with ThreadPoolExecutor(1) as thread:
            handles.extend(thread.submit(_new_namespace).result() for _ in range(count))
        yield [Path(f"/proc/{os.getpid()}/fd/{handle}") for handle in handles]
    finally:
        for handle in handles:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _ask_in(stage: Stage, netns: Path) -> str:
    """The status of a client of that namespace."""
    ask = ["nsenter", f"--net={netns}", sys.executable, "-c", ASK, VIP4, str(PORT)]
    return stage.run(*ask, seconds=20).stdout.strip()


def test_a_thousand_namespaces(stage: Stage, tmp_path: Path) -> None:
    """All are served, also after a hand-over, and nothing is left of them."""
    stage.route(table(name="none"))
    gates, old = stage.path.maps["gates"], running(stage.place)
    with namespaces(MANY) as paths:
        cookies = [netns_cookie(path, objects=stage.objects) for path in paths]
        with Conversation(stage.place.socket) as gate:
            ports = [gate.add_space(*one) for one in zip(cookies, paths, strict=True)]
        found = {GateKey.unpack(key).netns: Gate.unpack(value) for key, value in gates.items()}
        assert [int.from_bytes(found[cookie].port) for cookie in cookies] == ports
        assert _ask_in(stage, paths[-1]) == "404"
        another_version(stage, tmp_path)
        stage.start_gate()
        assert old
        wait_for(lambda: is_gone(old), "all has gone over")
        assert stage.status()["spaces"] == MANY + 1
        assert [_ask_in(stage, paths[number]) for number in (0, -1)] == ["404"] * 2
        with Conversation(stage.place.socket) as gate:
            for cookie in cookies:
                gate.drop_space(cookie)
    assert stage.status()["spaces"] == 1
    assert sum(1 for _ in gates.items()) == 1


def test_who_is_one_too_many_is_told(stage: Stage) -> None:
    gates = stage.path.maps["gates"]
    most = range(1, gates.max_entries)  # there is one already
    keys = b"".join(GateKey(netns=(1 << 48) + number).pack() for number in most)
    gates.update_batch(keys, Gate(port=bytes(2), flags=0).pack() * len(most))
    try:
        with namespaces(1) as (path,), Conversation(stage.place.socket) as gate:
            cookie = netns_cookie(path, objects=stage.objects)
            with pytest.raises(
                GateError, match="as many network namespaces as the map `gates` holds"
            ):
                gate.add_space(cookie, path)
            assert stage.status()["spaces"] == 1
            gates.delete(GateKey(netns=(1 << 48) + 1).pack())
            assert gate.add_space(cookie, path)
            gate.drop_space(cookie)
    finally:
        gates.delete_batch(keys)
    assert sum(1 for _ in gates.items()) == 1
