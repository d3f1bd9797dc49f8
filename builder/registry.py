# SPDX-License-Identifier: Apache-2.0
"""Whether the registry of a base image answers: decided in seconds, for a pull that hangs takes minutes."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

_HUB = "docker.io"
_HUB_ENDPOINT = "registry-1.docker.io"
SECONDS = 3.0


def registry_of(reference: str) -> str:
    """The host that an image reference is pulled from (distribution/reference: a dot, a colon or localhost)."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return _HUB_ENDPOINT if first == _HUB else first
    return _HUB_ENDPOINT


def answers(host: str, *, seconds: float = SECONDS) -> bool:
    """Whether a registry speaks its API (distribution spec, `GET /v2/`) within some seconds.

    Name resolution has no timeout of its own, so all of it runs in a thread that is left behind.
    """
    found: list[bool] = []
    worker = threading.Thread(target=lambda: found.append(_ask(host, seconds)), daemon=True)
    worker.start()
    worker.join(seconds)
    return bool(found) and found[0]


def _ask(host: str, seconds: float) -> bool:
    scheme = "http" if host.split(":", maxsplit=1)[0] in ("localhost", "127.0.0.1") else "https"
    try:
        with urllib.request.urlopen(f"{scheme}://{host}/v2/", timeout=seconds) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it wants a token, which is an answer
    except (OSError, ValueError):
        return False
