# SPDX-License-Identifier: Apache-2.0
"""A TCP server of one connection at a time, written out by hand: its segments are cut as a test likes.

It sits at the far end of a veth pair within one namespace, under a hardware address that nobody has,
so that the kernel leaves its packets alone.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.kernel.netns import enter_netns_at

HOST, PORT = "10.244.77.2", 8080
_OWN = "10.244.77.1"
_MAC = bytes.fromhex("020000000077")
_SYN, _RST, _PSH, _ACK = 0x02, 0x04, 0x08, 0x10
_ISN = 1000

# From the responses sent so far: where in the stream each segment begins, and its bytes.
Cut = Callable[[bytes], Sequence[tuple[int, bytes]]]


def _sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class RawServer:
    """A context manager.

    Args:
        netns: where.
        answer: the response to each request.
        cut: how the response's bytes come, as (offset, bytes).
    """

    def __init__(self, netns: Path, answer: bytes, cut: Cut) -> None:
        self._netns, self._answer, self._cut = netns, answer, cut
        self._sent = 0
        self._peers: dict[tuple[bytes, int], tuple[int, int]] = {}  # where they and we are
        self._over = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        name = self._netns.name
        for command in (
            "link add near type veth peer name far",
            f"address add {_OWN}/24 dev near",
            "link set near up",
            "link set far up",
            f"neigh add {HOST} lladdr {_MAC.hex(':')} dev near",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        subprocess.run(["ip", "-n", self._netns.name, "link", "del", "near"], check=True)

    def _run(self) -> None:
        enter_netns_at(self._netns)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as wire:
            wire.bind(("far", 0x0800))
            wire.settimeout(0.1)
            self._ready.set()
            while not self._over.is_set():
                try:
                    self._take(wire, wire.recv(65536))
                except TimeoutError:
                    continue
            for peer, (at, acknowledged) in self._peers.items():
                self._send(wire, peer, at, acknowledged, _RST | _ACK, b"")

    def _take(self, wire: socket.socket, frame: bytes) -> None:
        header = (frame[14] & 15) * 4
        if frame[:6] != _MAC or frame[23] != socket.IPPROTO_TCP:
            return
        length = struct.unpack("!H", frame[16:18])[0]
        segment = frame[14 + header : 14 + length]
        port, _, number, _, offset, flags = struct.unpack("!HHIIBB", segment[:14])
        data = segment[(offset >> 4) * 4 :]
        peer = (frame[6:12], port)
        if flags & _SYN:
            self._sent = 0
            self._send(wire, peer, 0, number + 1, _SYN | _ACK, b"")
        elif data:
            acknowledged = number + len(data)
            for at, part in self._cut(self._answer):
                place = 1 + self._sent + at
                self._send(wire, peer, place, acknowledged, _ACK | _PSH, part)
            self._sent += len(self._answer)
            self._peers[peer] = 1 + self._sent, acknowledged

    def _send(
        self,
        wire: socket.socket,
        peer: tuple[bytes, int],
        at: int,
        ack: int,
        flags: int,
        data: bytes,
    ) -> None:
        mac, port = peer
        here, there = socket.inet_aton(HOST), socket.inet_aton(_OWN)
        tcp = struct.pack(
            "!HHIIBBHHH", PORT, port, _ISN + at, ack & 0xFFFFFFFF, 5 << 4, flags, 65535, 0, 0
        )
        pseudo = here + there + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp + data))
        tcp = tcp[:16] + struct.pack("!H", _sum(pseudo + tcp + data)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp + data), 0, 0, 64, 6, 0) + here + there
        ip = ip[:10] + struct.pack("!H", _sum(ip)) + ip[12:]
        wire.send(mac + _MAC + b"\x08\x00" + ip + tcp + data)
