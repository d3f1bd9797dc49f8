# SPDX-License-Identifier: Apache-2.0
"""sendfile(2) and splice(2) into an enrolled socket go where its plan says, whole and in order."""

from __future__ import annotations

import os

from runtime.probe.behaviour.bench import Bench, pattern
from runtime.probe.behaviour.check import check, expect_bytes
from runtime.probe.behaviour.sockets import Sockets
from runtime.probe.behaviour.splice import splice

_SIZE = 20000


@check(
    "sockmap.splice",
    consequence="what applications send with sendfile or splice is lost or mixed up",
    remedy="a kernel with splice under redirect mended (mid-2025)",
)
def sockmap_splice(bench: Bench) -> None:
    sockets = Sockets(bench, "redirect", verdict="forward")
    client, gate = bench.pair()
    upstream, server = bench.pair()
    sockets.target(upstream)
    sockets.enroll(client)
    for target, receiver, way in ((upstream, server, "redirected"), (None, gate, "passed")):
        sockets.aim(client, to=target)
        sent = _sendfile(client.fileno())
        received = bench.receive(receiver, len(sent), what=f"{way} data of sendfile")
        expect_bytes(f"sendfile, {way}", sent=sent, received=received)
        sent = _splice(client.fileno())
        received = bench.receive(receiver, len(sent), what=f"{way} data of splice")
        expect_bytes(f"splice, {way}", sent=sent, received=received)
        bench.saw(f"sendfile and splice into an enrolled socket, {way}: whole and in order")


def _sendfile(to: int) -> bytes:
    data = pattern(_SIZE)
    file = os.memfd_create("kmesh-probe")  # no file of the host's is needed
    try:
        os.write(file, data)
        return data[: os.sendfile(to, file, 0, _SIZE)]
    finally:
        os.close(file)


def _splice(to: int) -> bytes:
    data = pattern(5000, start=_SIZE)
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        return data[: splice(reader, to, len(data))]
    finally:
        os.close(reader)
        os.close(writer)
