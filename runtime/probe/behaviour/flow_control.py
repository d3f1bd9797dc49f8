# SPDX-License-Identifier: Apache-2.0
"""What the flow control checks share: pushing until the kernel holds back, reading what arrived."""

from __future__ import annotations

import socket

# Small enough to be full in a moment. The kernel doubles what it is asked for (socket(7)).
BUFFER = 16384
CHUNK = 4096
# What no path may take in with nobody reading: many times what all its buffers hold.
TOO_MUCH = 1 << 20


def push(sender: socket.socket, data: bytes) -> int:
    """Send without waiting until the kernel holds back; how many bytes it took."""
    sent = 0
    while sent < len(data):
        try:
            sent += sender.send(data[sent : sent + CHUNK])
        except BlockingIOError:
            break
    return sent


def available(receiver: socket.socket) -> bytes:
    """What can be read right now."""
    data = bytearray()
    while True:
        try:
            chunk = receiver.recv(65536)
        except BlockingIOError:
            return bytes(data)
        if not chunk:
            return bytes(data)
        data += chunk
