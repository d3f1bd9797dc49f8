# SPDX-License-Identifier: Apache-2.0
"""Texts of a table's routes, end to end: bodies of answers, what redirects put in places of URLs, reasons."""

from __future__ import annotations

from runtime.model.http import PathKind, PathMatch, Redirect

CELL = 8  # bytes of an element of the map
MOST_BODY = 4096
STRIP_QUERY, PREFIX, PATH = 1, 2, 4  # KMESH_ROUTE_STRIP_QUERY and so on
ALL = 0xFFFFFFFF  # KMESH_ROUTE_ALL
NO_CONTENT = frozenset({204, 304})
NO_WAYPOINT = "it takes a waypoint, and there is none"  # runtime/gate/route.c
MOST_REASON = 200  # with the words before it less than REASON_ROOM there


class Texts:
    """Texts as they come in; each is there once."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._places: dict[bytes, int] = {}

    def place(self, text: bytes, *, whole: bool = False) -> int:
        """Where a text begins; with `whole` at the beginning of an element."""
        if text not in self._places:
            if whole:
                self._data += bytes(-len(self._data) % CELL)
            self._places[text] = len(self._data)
            self._data += text
        return self._places[text]

    def pack(self) -> bytes:
        """All of it, in whole elements; empty where there is nothing."""
        return bytes(self._data) + bytes(-len(self._data) % CELL)


def reason_text(why: str) -> bytes:
    """What a request is told whose route takes a waypoint, where there is none: it becomes a header's value.

    Reasons quote what users wrote, so what a header cannot carry is not let through.
    """
    plain = "".join(sign if " " <= sign <= "~" else "?" for sign in why)
    if len(plain) > MOST_REASON:
        plain = plain[: MOST_REASON - 3] + "..."
    return f"{NO_WAYPOINT}: {plain}".encode() + b"\0"


def reason_in(text: bytes) -> str:
    """The reason in such a text."""
    return text.rstrip(b"\0").decode("ascii", errors="replace").removeprefix(f"{NO_WAYPOINT}: ")


def why_no_body(status: int, body: bytes) -> str | None:
    """Why an answer with this body is not for us to give."""
    if len(body) > MOST_BODY:
        return f"direct_response.body: {len(body)} bytes, more than {MOST_BODY}"
    if body and status in NO_CONTENT:
        return f"direct_response.body: a response {status} has none"
    return None


def why_no_redirect(redirect: Redirect) -> str | None:
    """Why a redirect is not for us to make."""
    parts = _parts(redirect)
    if any(not one.isprintable() or not one.isascii() for one in parts):
        return "redirect: a character that no URL has"
    if sum(map(len, parts)) > MOST_BODY:
        return f"redirect: more than {MOST_BODY} characters"
    return None


def redirect_text(redirect: Redirect) -> bytes:
    """Scheme, host, port and path, as struct kmesh_route has them."""
    return b"".join(part.encode() + b"\0" for part in _parts(redirect))


def _parts(redirect: Redirect) -> tuple[str, ...]:
    scheme = redirect.scheme or ("https" if redirect.https else "")
    port = f":{redirect.port}" if redirect.port else ""
    return scheme, redirect.host or "", port, redirect.path or redirect.prefix or ""


def redirect_flags(redirect: Redirect) -> int:
    flags = STRIP_QUERY if redirect.strip_query else 0
    if redirect.path is not None:
        return flags | PATH
    # Envoy takes an empty prefix for none at all.
    return flags | PREFIX if redirect.prefix else flags


def matched(path: PathMatch) -> int:
    """How much of a path a prefix takes the place of."""
    if path.kind in {PathKind.PREFIX, PathKind.SEPARATED_PREFIX}:
        return len(path.value.encode())
    return ALL
