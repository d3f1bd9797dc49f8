# SPDX-License-Identifier: Apache-2.0
"""Each byte of a stream once, though TCP has a segment with bytes of the one before.

The peer is made by hand at the other end of a veth pair, as no kernel sends such segments when asked to.
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.bpf.attach import AttachType, attach_to_map
from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import BpfObject
from runtime.tables.enhanced_layout import Upstream
from tests.dataplane.accelerate_stage import enter_new_netns, fork, result

pytestmark = pytest.mark.root

_SO_COOKIE = 57
_OURS, _PEERS = "192.0.2.1", "192.0.2.2"
_PORT = 80
_FIN, _SYN, _ACK = 1, 2, 16
_FIRST = (1 << 32) - 30_001  # the peer's first number: they start again at 0 on the way
BYTES = bytes(range(251)) * 400  # of which no part is like another nearby


def _sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass
class Peer:
    """A TCP end in user space, good for one connection; it acknowledges nothing and sends what it is told."""

    wire: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        for command in (
            "link add ours mtu 65535 type veth peer name peers mtu 65535",
            f"address add {_OURS}/24 dev ours",
            "link set peers address 02:00:00:00:00:02",
            "link set ours up",
            "link set peers up",
            f"neighbour add {_PEERS} lladdr 02:00:00:00:00:02 dev ours",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self.wire.bind(("peers", 0))
        self.wire.settimeout(20)

    def accept(self, client: socket.socket) -> None:
        client.setblocking(False)
        client.connect_ex((_PEERS, _PORT))
        while True:
            frame = self.wire.recv(65536)
            if frame[23] == socket.IPPROTO_TCP and frame[47] == _SYN:
                break
        self.ours = frame[6:12]
        self.port, _, number = struct.unpack("!HHI", frame[34:42])
        self.acknowledged = (number + 1) & 0xFFFFFFFF
        self._send(_FIRST, b"", _SYN | _ACK)
        assert select.select([], [client], [], 20)[1]

    def send(self, start: int, end: int, flags: int = 0) -> None:
        """Bytes of BYTES from one to another, whether they were sent before or not."""
        self._send(_FIRST + 1 + start, BYTES[start:end], _ACK | flags)

    def _send(self, number: int, data: bytes, flags: int) -> None:
        ends = socket.inet_aton(_PEERS) + socket.inet_aton(_OURS)
        head = struct.pack(
            "!HHIIBBHHH", _PORT, self.port, number & 0xFFFFFFFF, self.acknowledged, 5 << 4, flags,
            65535, 0, 0,
        )  # fmt: skip
        pseudo = ends + struct.pack("!HH", socket.IPPROTO_TCP, len(head) + len(data))
        total = struct.pack("!H", _sum(pseudo + head + data))
        segment = head[:16] + total + head[18:] + data
        packet = struct.pack(
            "!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, socket.IPPROTO_TCP, 0
        )
        packet = packet[:10] + struct.pack("!H", _sum(packet + ends)) + ends
        self.wire.send(self.ours + b"\2\0\0\0\0\2" + b"\x08\x00" + packet + segment)


@dataclass(frozen=True)
class Let:
    """A verdict program: its object, its name, and the map that it is put on."""

    file: str
    program: str
    sockets: str


LET = [
    Let("enhanced/request.bpf.o", "kmesh_let_through", "clients"),
    Let("accelerate/accelerate.bpf.o", "kmesh_let_through", "sockets"),
    Let("home/home.bpf.o", "kmesh_come_home", "upstreams"),
]


def _enrolled(let: Let, objects: Path, client: socket.socket, stack: ExitStack) -> None:
    opened = stack.enter_context(BpfObject(objects / let.file))
    for name in opened.programs():
        opened.set_autoload(name, load=name == let.program)
    opened.load()
    maps = opened.maps()
    attach_to_map(
        opened.programs()[let.program].fd, maps[let.sockets].fd, AttachType.SK_SKB_STREAM_VERDICT
    )
    cookie = client.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    if let.sockets == "upstreams":
        _note_upstream(maps, cookie)
    maps[let.sockets].update(cookie, struct.pack("=Q", client.fileno()))


def _note_upstream(maps: dict[str, BpfMap], cookie: bytes) -> None:
    nothing = Upstream(*[0] * len(Upstream._fields))
    number = struct.pack("=I", 1)
    row = nothing._replace(cookie=struct.unpack("=Q", cookie)[0])
    maps["gate_upstreams"].update(number, row.pack())
    maps["upstream_ids"].update(cookie, number)


def _read(client: socket.socket, size: int) -> bytes:
    """What is there to read, at least a size, as a program that waits for news would."""
    got = b""
    while len(got) < size:
        assert select.select([client], [], [], 20)[0], f"after {len(got)} of {size} bytes no news"
        got += client.recv(65536)
    return got


SEGMENTS = {
    "one byte": [(0, 100), (99, 150)],
    "all but one byte": [(0, 100), (0, 101)],
    "more than is cut at once": [(0, 30_000), (5_000, 45_000)],
    "as much as is cut at once, twice": [(0, 8_190), (0, 20_000)],
    "one after the other": [(0, 30_000), (20_000, 31_000), (30_500, 50_000), (40_000, 50_001)],
    "none": [(0, 100), (100, 200), (200, 50_000)],
    "before what came out of order": [(0, 100), (150, 250), (50, 200)],
}


def _scenario(let: Let, objects: Path, segments: list[tuple[int, int]]) -> None:
    enter_new_netns()
    peer = Peer()
    with socket.socket() as client, ExitStack() as stack:
        peer.accept(client)
        _enrolled(let, objects, client, stack)
        have = known = 0
        for start, end in segments:
            peer.send(start, end)
            known = max(known, end)
            if start <= have:  # else it waits for what is before it
                assert _read(client, known - have) == BYTES[have:known], (start, end)
                have = known
        peer.send(have - 10, have, _FIN)
        assert select.select([client], [], [], 20)[0]
        assert client.recv(100) == b""


@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS.keys())
@pytest.mark.parametrize("let", LET, ids=lambda let: let.file.partition("/")[0])
def test_bytes_that_come_again_are_not_read_again(
    let: Let, all_objects: Path, segments: list[tuple[int, int]]
) -> None:
    result(*fork(lambda: _scenario(let, all_objects, segments)))
