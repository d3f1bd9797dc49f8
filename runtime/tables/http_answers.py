# SPDX-License-Identifier: Apache-2.0
"""Responses without an endpoint that are the same each time but for their date, as the kernel gives them.

In the bytes that the gate gives them in (runtime/gate/answer.c). What has no place here is the gate's.
"""

from __future__ import annotations

from http import HTTPStatus
from struct import Struct

from runtime.tables.http_texts import NO_CONTENT

MOST = 1008  # KMESH_ANSWER_MOST
ANSWER = Struct(f"=III4x{MOST}s")  # struct kmesh_answer
MOST_ANSWERS = 1024  # of one table: each is a KiB of the kernel's memory
DATE = 29  # KMESH_DATE
# Those with a Location are made for the request; of some others Python and Envoy have other names.
_STATUSES = frozenset(
    {200, 202, 204, 400, 401, 403, 404, 405, 406, 409, 410, 429, 500, 501, 502, 503, 504}
)


class Answers:
    """Answers of one table as they come in; each is there once, and the first is for no route at all."""

    def __init__(self) -> None:
        self._packed = [packed(404, b"")]
        self._places: dict[tuple[int, bytes], int] = {}

    def place(self, status: int, body: bytes) -> int:
        """The number of an answer; 0 where it is the gate's to give."""
        key = (status, body)
        if key in self._places:
            return self._places[key]
        made = packed(status, body) if status in _STATUSES else b""
        if not made or len(self._packed) == MOST_ANSWERS:
            return 0
        self._places[key] = len(self._packed)
        self._packed.append(made)
        return self._places[key]

    def pack(self) -> bytes:
        """All of them, end to end."""
        return b"".join(self._packed)


def packed(status: int, body: bytes) -> bytes:
    """One answer, empty when it is too long.

    Args:
        status: its code, one of those that have the same name everywhere.
        body: its content, which is plain text.
    """
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ndate: ".encode()
    text = head + bytes(DATE) + b"\r\n"
    if status in NO_CONTENT:
        text += b"\r\n"
    else:
        kind = b"content-type: text/plain\r\n" if body else b""
        text += f"content-length: {len(body)}\r\n".encode() + kind + b"\r\n" + body
    return ANSWER.pack(len(text), len(head), status, text) if len(text) <= MOST else b""
