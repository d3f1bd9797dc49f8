# SPDX-License-Identifier: Apache-2.0
"""Whether a client's socket tells rightly how much there is to read, once it is in a socket map.

Some kernels count only what a verdict program let through (6.6.128, 6.12.75, 6.18.14 and later);
others count nothing of it. Versions do not tell, as vendors backport: so it is tried.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time

from runtime.bpf.attach import AttachType, attach_to_map
from runtime.bpf.maps import BpfMap
from runtime.bpf.objects import Program

_SO_COOKIE = 57
_BYTES = b"x" * 100


def counts_rightly(clients: BpfMap) -> bool:
    """Put one end of a connection of this process into the map, and count what the other sends."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        cookie = client.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
        clients.update(cookie, struct.pack("=Q", client.fileno()))
        server.sendall(_BYTES)
        client.setblocking(False)
        for _ in range(100):
            counted = struct.unpack("i", fcntl.ioctl(client, termios.FIONREAD, bytes(4)))[0]
            if counted == len(_BYTES):
                return True
            time.sleep(0.002)
        return False


def mend(clients: BpfMap, let_through: Program) -> bool:
    """Have a program let everything through where that makes the count right.

    Args:
        clients: the socket map, with its message program attached.
        let_through: a stream verdict program that passes everything.

    Returns:
        whether the count is right now.
    """
    if counts_rightly(clients):
        return True
    attach_to_map(let_through.fd, clients.fd, AttachType.SK_SKB_STREAM_VERDICT)
    return counts_rightly(clients)
