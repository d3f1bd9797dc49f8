# SPDX-License-Identifier: Apache-2.0
"""The matcher in the kernel: an sk_msg program on a real socket, which notes what it takes a head for."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.bpf.attach import AttachType, attach_to_map
from runtime.bpf.objects import BpfObject
from runtime.kernel.http_inner import Sets, keep, show
from runtime.plan.walk import Routed
from runtime.tables.http_layout import HttpHead, HttpOutcome, HttpSet, HttpTrial
from runtime.tables.http_numbers import Verdict
from runtime.tables.http_routes import CompiledRoutes

_ONLY = bytes(4)


class KernelMatcher:
    """The programs of bpf/match, on one connection over loopback."""

    def __init__(self, objects: Path) -> None:
        with ExitStack() as stack:
            opened = stack.enter_context(BpfObject(objects / "match/match.bpf.o"))
            opened.load()
            self._maps = opened.maps()
            self._sets = Sets(self._maps)
            programs = opened.programs()
            attach_to_map(
                programs["http_read"].fd, self._maps["http_sockets"].fd, AttachType.SK_MSG_VERDICT
            )
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self._client = stack.enter_context(socket.create_connection(listening.getsockname()))
            self._server = stack.enter_context(listening.accept()[0])
            self._server.settimeout(5)
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._maps["http_sockets"].update(_ONLY, self._client.fileno().to_bytes(4, "little"))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def use(self, tables: CompiledRoutes) -> None:
        """Route by these tables from now on."""
        self._sets.make(tables)
        assert show([self._sets.grammars, self._sets.graphs]) == [{}, {}]
        self._write(HttpTrial.unpack(tables.set.pack().ljust(256, b"\0")))
        keep(self._sets.kept([tables.set]))

    def drop_tables(self) -> None:
        """Remove them from under the program that reads them."""
        keep(self._sets.kept([]))

    def _write(self, trial: HttpTrial) -> None:
        self._maps["http_trial"].update(_ONLY, trial.pack())

    def trial(self) -> HttpTrial:
        found = self._maps["http_trial"].lookup(_ONLY)
        assert found is not None
        return HttpTrial.unpack(found)

    def send(self, data: bytes) -> None:
        """Send some bytes in one message, and see that they arrive."""
        self._client.sendall(data)
        left = len(data)
        while left:
            got = self._server.recv(left)
            assert got
            left -= len(got)

    def route(self, data: bytes) -> Routed:
        """What the kernel takes a message for."""
        before = self.trial().messages
        self.send(data)
        trial = self.trial()
        assert trial.messages == before + 1, "the program has not seen the message"
        outcome = HttpOutcome.unpack(trial.outcome)
        head = HttpHead.unpack(trial.head)
        return Routed.of(Verdict(trial.verdict), head, route=outcome.route, steps=outcome.steps)

    def set_in_use(self) -> HttpSet:
        return HttpSet.unpack(self.trial().set)
