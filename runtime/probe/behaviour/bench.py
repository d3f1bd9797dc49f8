# SPDX-License-Identifier: Apache-2.0
"""What a check works with: probe objects, attachments, and connections within the scratch namespace.

Nothing sleeps: every wait is for a condition, with a patience after which the condition is taken as
one that will not come true.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from runtime.bpf.attach import AttachType, Link, attach_to_map
from runtime.bpf.objects import BpfObject
from runtime.probe.behaviour.outcome import BrokenError, InconclusiveError
from runtime.probe.verdict import Evidence, Level, Verdict

SO_COOKIE = 57
# Long for a loopback and a kernel worker, short for a user; below half of it a wait proves nothing.
PATIENCE = 0.3


class Bench:
    """The place of one check, a context manager that gives back what the check took.

    Args:
        objects: the directory with `probe/*.bpf.o`.
        cgroup: the scratch cgroup that this process is in.
        deadline: when the check must have ended, by `time.monotonic`.
        ingress: redirecting into a receive queue may be tried; a check that has more to it leaves
            that part out where not.
    """

    def __init__(
        self, *, objects: Path, cgroup: Path, deadline: float, ingress: bool = True
    ) -> None:
        self.ingress = ingress
        self.cgroup = cgroup
        self.deadline = deadline
        self.evidence: list[Evidence] = []
        self._objects = objects
        self._stack = ExitStack()
        self._links: list[Link] = []

    def close(self) -> None:
        self.detach()
        self._stack.close()

    def saw(self, summary: str) -> None:
        """Keep what came out right as evidence."""
        self._keep(summary, level=Level.BEHAVIOUR, verdict=Verdict.PRESENT)

    def look(self, summary: str, *, fine: bool) -> None:
        """Keep one of several ways as a fact, whichever way it came out: it does not decide."""
        verdict = Verdict.PRESENT if fine else Verdict.BROKEN
        self._keep(summary, level=Level.FACT, verdict=verdict)

    def _keep(self, summary: str, *, level: Level, verdict: Verdict) -> None:
        self.evidence.append(Evidence(level=level, verdict=verdict, summary=summary))

    def load(self, name: str, *, only: tuple[str, ...] = ()) -> BpfObject:
        """Load a probe object, or only some of its programs."""
        loaded = BpfObject(self._objects / "probe" / f"{name}.bpf.o")
        self._stack.callback(loaded.close)
        for program in loaded.programs() if only else ():
            loaded.set_autoload(program, load=program in only)
        loaded.load()
        return loaded

    def attach(self, loaded: BpfObject, program: str) -> None:
        """Attach a program to the scratch cgroup, with a link: it goes with this process."""
        found = loaded.programs()[program]
        directory = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._links.append(Link.to_cgroup(found.fd, directory, found.attach_type))
        finally:
            os.close(directory)

    def detach(self) -> None:
        while self._links:
            self._links.pop().close()

    def attach_to_map(self, loaded: BpfObject, program: str, name: str) -> None:
        """Attach a verdict program to a socket map; sockets that are put in from now on get it."""
        found = loaded.programs()[program]
        kind = AttachType.SK_MSG_VERDICT if found.section == "sk_msg" else None
        attach_to_map(found.fd, loaded.maps()[name].fd, kind or AttachType.SK_SKB_STREAM_VERDICT)

    def listener(
        self, family: socket.AddressFamily = socket.AF_INET, *, buffer: int | None = None
    ) -> socket.socket:
        """A listening socket on the loopback.

        Args:
            family: of its address.
            buffer: bytes of receive and send buffer of what it accepts.
        """
        made = self._socket(family, buffer)
        made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        made.listen(8)
        return made

    def _socket(self, family: socket.AddressFamily, buffer: int | None) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._stack.callback(made.close)
        if buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        return made

    def connect(self, address: tuple[str, int], *, buffer: int | None = None) -> socket.socket:
        """A connected socket, non-blocking from then on.

        Raises:
            OSError: it was refused, or there is no way there.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        made = self._socket(family, buffer)
        made.settimeout(self.patience())
        made.connect(address)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def accept(self, listener: socket.socket) -> socket.socket:
        self.wait(listener, what="a connection to accept")
        made, _peer = listener.accept()
        self._stack.callback(made.close)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def pair(self, *, buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
        """Both ends of a TCP connection: the one that connected, the one that was accepted."""
        listener = self.listener(buffer=buffer)
        client = self.connect(listener.getsockname(), buffer=buffer)
        server = self.accept(listener)
        listener.close()
        return client, server

    def patience(self) -> float:
        """Seconds that a wait may still take."""
        return max(min(PATIENCE, self.deadline - time.monotonic()), 0.001)

    def wait(self, sock: socket.socket, *, what: str, event: int = select.POLLIN) -> None:
        """Wait until a socket is ready.

        Raises:
            BrokenError: it does not get ready.
            InconclusiveError: there was no time left to tell.
        """
        poll = select.poll()
        poll.register(sock, event)
        patience = self.patience()
        if not poll.poll(patience * 1000):
            self._out_of_patience(what, patience)

    def until(self, condition: Callable[[], bool], *, what: str) -> None:
        """Wait until a condition that nothing wakes us for holds; errors as for `wait`."""
        patience = self.patience()
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end:
                self._out_of_patience(what, patience)
            time.sleep(0.0005)

    def _out_of_patience(self, what: str, patience: float) -> None:
        if patience < PATIENCE / 2:
            raise InconclusiveError(f"no time left to wait for {what}")
        raise BrokenError("waiting", expected=what, seen=f"nothing within {patience:.1f} s")

    def receive(self, sock: socket.socket, size: int, *, what: str) -> bytes:
        """Exactly so many bytes, or fewer when the stream ends before."""
        data = bytearray()
        while len(data) < size:
            self.wait(sock, what=f"{what} ({len(data)} of {size} bytes so far)")
            try:
                chunk = sock.recv(min(size - len(data), 65536))
            except BlockingIOError:
                continue
            if not chunk:
                break
            data += chunk
        return bytes(data)

    def receive_all(self, sock: socket.socket, *, what: str) -> bytes:
        """Everything up to the end of the stream."""
        return self.receive(sock, 1 << 30, what=what)


def cookie(sock: socket.socket) -> int:
    """The kernel's number of a socket, unique since boot."""
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0])


def unread(sock: socket.socket) -> int:
    """How many bytes the socket says can be read: FIONREAD, tcp(7)."""
    answer = fcntl.ioctl(sock, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("=i", answer)[0])


def pattern(size: int, *, start: int = 0) -> bytes:
    """Bytes in which a loss, a repetition or a swap shows: each word says where it is."""
    words = range(start // 4, (start + size) // 4 + 1)
    return struct.pack(f"<{len(words)}I", *words)[start % 4 :][:size]
