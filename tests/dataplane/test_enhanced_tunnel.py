# SPDX-License-Identifier: Apache-2.0
"""What the waypoint is given, byte for byte: an introduction, and from where framing is unsure on, everything."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.launch.gate import running
from runtime.tables.identities import pack_tlvs
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.test_dataplane_waypoint import parse
from tests.dataplane.test_enhanced_handover import another_version, is_gone
from tests.dataplane.test_enhanced_streams import good
from tests.dataplane.waypoint_envoy import Recorder, use_node
from tests.dataplane.world import VIP4, wait_for

pytestmark = pytest.mark.root

SOURCE = "10.244.3.4"
WHO = "spiffe://cluster.local/ns/shop/sa/cart"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-backend: far\r\n\r\nok"
Start = Callable[..., Recorder]


@pytest.fixture(scope="module")
def placed(shared_stage: Stage) -> Stage:
    """The stage's namespace has an address by which others know it."""
    shared_stage.world.add_address(f"{SOURCE}/32")
    key = bytes(10) + b"\xff\xff" + socket.inet_aton(SOURCE)
    tlvs = pack_tlvs(WHO)
    assert tlvs
    shared_stage.path.maps["source_tlvs"].update(key, tlvs)
    return shared_stage


@pytest.fixture
def start(placed: Stage, stage: Stage, tmp_path: Path) -> Iterator[Start]:
    stage.serve("a", "b")
    stage.route(table(to("/far", "a", beyond=("timeout: 3s",)), to("/a", "a"), to("/b", "b")))
    with ExitStack() as stack:
        stack.callback(use_node, stage, "")

        def begin(answer: bytes = OK, *, ends: bool = False) -> Recorder:
            use_node(stage, tmp_path / "waypoint")
            return stack.enter_context(Recorder(tmp_path / "waypoint", answer=answer, ends=ends))

        yield begin


def rest(recorder: Recorder, number: int, length: int) -> bytes:
    """What follows the introduction, when it is that long."""

    def found() -> bytes:
        return bytes(parse(bytes(recorder.bytes[number]))["rest"])

    wait_for(lambda: len(recorder.bytes) > number and len(recorder.bytes[number]) > 300, "a header")
    wait_for(lambda: len(found()) >= length, "all bytes")
    return found()


def test_the_introduction_names_client_service_and_identity(stage: Stage, start: Start) -> None:
    recorder = start()
    number = stage.client("connect", VIP4, PORT)
    assert stage.client("ask", number, "/far")[:2] == [200, "far"]
    rest(recorder, 0, 1)  # it answers before it reads
    told = parse(bytes(recorder.bytes[0]))
    assert (told["source"], told["destination"], told["port"]) == (SOURCE, VIP4, PORT)
    assert told["tlvs"][0xD0] == WHO.encode()
    assert told["rest"].startswith(b"GET /far HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "unsure",
    [
        b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /a HTTP/1.1\nHost: x\n\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST /far HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)  # fmt: skip
def test_from_where_it_is_unsure_on_all_bytes_go_one_way(
    stage: Stage, start: Start, unsure: bytes
) -> None:
    """A request that would be the kernel's, hidden behind: whoever reads the first reads it too."""
    recorder, before = start(), stage.taken()
    number = stage.client("connect", VIP4, PORT)
    hidden = b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    stage.client("send", number, (unsure + hidden).decode("latin-1"))
    assert stage.client("read", number)[:2] == [200, "far"]
    for _ in range(3):  # and whatever comes later
        stage.client("send", number, hidden.decode())
    everything = unsure + hidden * 4
    assert rest(recorder, 0, len(everything)) == everything
    assert len(recorder.peers) == 1
    assert stage.taken() == before


def test_what_comes_before_is_answered_first(stage: Stage, start: Start) -> None:
    start()
    number = stage.client("connect", VIP4, PORT)
    slow = "GET /a/slow/0.5 HTTP/1.1\r\nHost: x\r\n\r\n"
    stage.client("send", number, slow + "GET /b HTTP/1.1\r\nHost : x\r\n\r\n")
    assert stage.client("read", number) == good("a", "/a/slow/0.5", 0)
    assert stage.client("read", number)[:2] == [200, "far"]


def test_either_half_ends_by_itself(stage: Stage, start: Start) -> None:
    recorder = start(OK, ends=True)
    number = stage.client("connect", VIP4, PORT)
    begin = b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n"
    stage.client("send", number, begin.decode())
    assert stage.client("read", number)[:2] == [200, "far"]
    assert stage.client("at_end", number)
    stage.client("send", number, "still taken")
    assert rest(recorder, 0, len(begin) + 11) == begin + b"still taken"
    assert recorder.ended == [""]
    stage.client("end_sending", number)
    wait_for(lambda: recorder.ended == ["end"], "the waypoint sees the client's end")

    second = stage.client("connect", VIP4, PORT)
    stage.client("send", second, begin.decode())
    stage.client("read", second)
    assert stage.client("at_end", second)
    stage.client("abort", second)
    wait_for(lambda: bool(recorder.ended[1]), "the waypoint sees the client's reset")


def test_a_waypoint_that_resets_is_a_reset_for_the_client(stage: Stage, start: Start) -> None:
    recorder = start()
    number = stage.client("connect", VIP4, PORT)
    stage.client("send", number, "CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n")
    assert stage.client("read", number)[:2] == [200, "far"]
    recorder.peers[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    recorder.peers[0].shutdown(socket.SHUT_RDWR)
    assert stage.client("at_end", number)


def test_a_tunnel_and_the_nodes_waypoint_outlive_a_gate(
    stage: Stage, start: Start, tmp_path: Path
) -> None:
    recorder = start()
    tunnel, other = (stage.client("connect", VIP4, PORT) for _ in range(2))
    stage.client("send", tunnel, "CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n")
    assert stage.client("read", tunnel)[:2] == [200, "far"]
    assert stage.client("ask", other, "/far")[:2] == [200, "far"]
    old = running(stage.place)
    assert old
    another_version(stage, tmp_path)
    assert stage.start_gate() != old
    assert stage.client("ask", other, "/far")[:2] == [200, "far"]
    assert stage.client("ask", other, "/a/size/3") == good("a", "/a/size/3", 3)
    stage.client("send", tunnel, "more")
    wait_for(lambda: recorder.bytes[0].endswith(b"more"), "the tunnel goes on")
    stage.client("close", tunnel)
    wait_for(lambda: is_gone(old), "the old gate ends with its last connection")
