# SPDX-License-Identifier: Apache-2.0
"""Path normalization, RFC 3986 (6.2.2), as Envoy does it and the gate (runtime/gate/normalise.c)."""

from __future__ import annotations

import re
from string import ascii_letters, digits

_UNRESERVED = (ascii_letters + digits + "-._~").encode()
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
# Escapes of controls, what is no escape, backslashes (slashes to Envoy), and fragments.
_NOBODYS = re.compile(rb"%(?:[01].|7[Ff]|(?![0-9A-Fa-f]{2}))|[\\#]")


def normalised(path: bytes) -> bytes | None:
    """A path in the form in which it is matched and handed on.

    Args:
        path: of a request's target, beginning with a slash and without the query.

    Returns:
        None where readers differ about what it means: nobody rewrites that.
    """
    if _NOBODYS.search(path):
        return None
    text = _ESCAPE.sub(_decoded, path)
    made: list[bytes] = []
    names = text[1:].split(b"/")
    for number, name in enumerate(names):
        plain, parameters, _ = name.partition(b";")
        if plain not in (b".", b".."):
            made.append(name)
            continue
        if parameters:
            return None
        if plain == b"..":
            del made[-1:]
        if number == len(names) - 1:
            made.append(b"")
    return b"/" + b"/".join(made)


def _decoded(escape: re.Match[bytes]) -> bytes:
    byte = bytes([int(escape[1], 16)])
    return byte if byte in _UNRESERVED else escape[0]


def normalised_head(head: bytes) -> bytes | None:
    """A request's head with its path in that form; None where nothing is to be done, or can be."""
    method, space, rest = head.partition(b" ")
    end = re.search(rb"[ ?]", rest)
    path = rest[: end.start()] if end else b""
    made = normalised(path) if path.startswith(b"/") else None
    return None if made in (None, path) else method + space + (made or b"") + rest[len(path) :]
