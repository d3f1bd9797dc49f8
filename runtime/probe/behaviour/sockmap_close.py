# SPDX-License-Identifier: Apache-2.0
"""Ends of connections while data is redirected: nothing is lost, nobody hangs, nobody sees EAGAIN."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check, expect, expect_bytes
from runtime.probe.behaviour.outcome import BrokenError
from runtime.probe.behaviour.remedy import choose
from runtime.probe.behaviour.sockets import Sockets

_REQUEST, _ANSWER = b"request", b"answer"


@check(
    "sockmap.close",
    consequence="connections that end while they are redirected lose data or hang",
    remedy="another kernel; until then HTTP goes by the compat path",
)
def sockmap_close(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    if bench.ingress:
        sockets.verdict("come_home", "targets")
    choose(bench, sockets)
    for case in (_half_close, _close_at_once, _upstream_gone, _answer_then_close):
        case(bench, _Ends(bench, sockets))
    _blocked_reader(bench, _Ends(bench, sockets), send=b"")
    _blocked_reader(bench, _Ends(bench, sockets), send=_ANSWER)


class _Ends:
    """A client whose data goes to an upstream, whose answers come home."""

    def __init__(self, bench: Bench, sockets: Sockets) -> None:
        self.client, self.gate = bench.pair()
        self.upstream, self.server = bench.pair()
        sockets.target(self.upstream, home=self.client)
        sockets.enroll(self.client, to=self.upstream)
        self._answers = self.server if bench.ingress else self.gate

    def answer(self) -> None:
        """Answer the client: from the server into its queue, or by the gate."""
        self._answers.sendall(_ANSWER)


def _half_close(bench: Bench, ends: _Ends) -> None:
    ends.client.sendall(_REQUEST)
    ends.client.shutdown(socket.SHUT_WR)
    received = bench.receive(ends.server, len(_REQUEST), what="a request before a half-close")
    expect_bytes("a request before a half-close", sent=_REQUEST, received=received)
    expect("at the gate", expected=b"", seen=bench.receive_all(ends.gate, what="the half-close"))
    ends.answer()
    received = bench.receive(ends.client, len(_ANSWER), what="an answer after a half-close")
    expect_bytes("an answer after a half-close", sent=_ANSWER, received=received)
    bench.saw("half-close: the request arrived, the gate saw the end, the answer came home")


def _close_at_once(bench: Bench, ends: _Ends) -> None:
    ends.client.sendall(_REQUEST)
    ends.client.close()
    received = bench.receive(ends.server, len(_REQUEST), what="a request before a close")
    expect_bytes("a request before a close", sent=_REQUEST, received=received)
    expect("at the gate", expected=b"", seen=bench.receive_all(ends.gate, what="the close"))
    bench.saw("close right after sending: the request arrived, the gate saw the end")


def _upstream_gone(bench: Bench, ends: _Ends) -> None:
    ends.upstream.close()
    ends.client.sendall(_REQUEST)
    received = bench.receive(
        ends.gate, len(_REQUEST), what="a request for an upstream that is gone"
    )
    expect_bytes("a request for an upstream that is gone", sent=_REQUEST, received=received)
    bench.saw("a request for an upstream that is gone reached the gate")


def _answer_then_close(bench: Bench, ends: _Ends) -> None:
    ends.answer()
    bench.wait(ends.client, what="an answer")
    ends.server.close()
    ends.gate.close()
    received = bench.receive_all(ends.client, what="an answer and the end")
    expect_bytes("an answer before the end", sent=_ANSWER, received=received)
    bench.saw("an answer, then the end: the client got both")


def _blocked_reader(bench: Bench, ends: _Ends, *, send: bytes) -> None:
    """The peer closes while recv(2) blocks: it must return the data, then the end, never EAGAIN."""
    reader = _Reader(ends.client)
    bench.until(reader.is_blocked, what="a reader to block")
    if send:
        ends.gate.sendall(send)
    ends.gate.close()
    reader.join(bench.patience())
    what = "a blocking recv while the peer closes"
    if not reader.ended:
        raise BrokenError(
            what, expected=[send, b""], seen=f"a reader that hangs after {reader.seen}"
        )
    expect(what, expected=[send, b""] if send else [b""], seen=reader.seen)
    bench.saw(f"blocking recv while the peer closes: {'data, then ' if send else ''}the end")


class _Reader(threading.Thread):
    """Reads a socket to its end, blocking; what each recv returned, or its error, is in `seen`."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        sock.setblocking(True)
        self._sock = sock
        self.seen: list[object] = []
        self.ended = False
        self.start()

    def run(self) -> None:
        try:
            while chunk := self._sock.recv(1000):
                self.seen.append(chunk)
            self.seen.append(b"")
        except OSError as error:
            self.seen.append(error.strerror)
        self.ended = True

    def is_blocked(self) -> bool:
        """Asleep in the kernel, in recvfrom (proc(5), syscall: 45 on x86-64, 207 on arm64)."""
        if self.native_id is None:
            return False
        stat = Path(f"/proc/self/task/{self.native_id}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "S" and self._in_recv()

    def _in_recv(self) -> bool:
        try:
            call = Path(f"/proc/self/task/{self.native_id}/syscall").read_text().split()[0]
        except OSError:
            return True  # not every kernel tells
        return call in {"45", "207"}
