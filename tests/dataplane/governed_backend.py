# SPDX-License-Identifier: Apache-2.0
"""A process of HTTP servers whose every answer the test decides (see agent.py).

`/x/status/404` says that, `/x/hold/KEY` nothing until KEY is released, `/x/die` ends the connection.
A server whose name begins with `slow` takes its time for each.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.dataplane import http_backend

SLOW = 0.2  # s

_lock = threading.Lock()
_listeners: dict[str, socket.socket] = {}
_held: dict[str, threading.Event] = {}
_seen: Counter[str] = Counter()  # requests, by target
_served: Counter[str] = Counter()  # by server
_accepted: Counter[str] = Counter()  # connections, by server


def start(name: str) -> int:
    """Serve on a port of its own, which is returned."""
    listener = _listeners[name] = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=_accept, args=(listener, name), daemon=True).start()
    return int(listener.getsockname()[1])


def stop(name: str) -> None:
    """Refuse connections from now on."""
    listener = _listeners.pop(name)
    listener.shutdown(socket.SHUT_RDWR)  # who accepts is woken
    listener.close()


def release(key: str) -> None:
    _event(key).set()


def counts(name: str) -> dict[str, int]:
    """Requests by target, and requests and connections of servers whose names begin so."""
    with _lock:
        servers = {each for each in _served if each.startswith(name)}
        return {
            **_seen,
            "accepted": sum(n for each, n in _accepted.items() if each.startswith(name)),
            **{f"served {each}": _served[each] for each in servers},
        }


def _event(key: str) -> threading.Event:
    with _lock:
        return _held.setdefault(key, threading.Event())


def _accept(listener: socket.socket, name: str) -> None:
    with suppress(OSError):
        while True:
            peer = listener.accept()[0]
            with _lock:
                _accepted[name] += 1
            threading.Thread(target=_serve, args=(peer, name), daemon=True).start()


def _serve(peer: socket.socket, name: str) -> None:
    with suppress(OSError, ValueError), peer, peer.makefile("rb") as stream:
        while _answer(peer, stream, name):
            pass


def _answer(peer: socket.socket, stream: BinaryIO, name: str) -> bool:
    """False: the connection ends."""
    head = http_backend.read_head(stream)
    if head is None:
        return False
    target = head[0].split(" ")[1]
    http_backend.read_body(stream, head[1])
    what, argument = (*target.split("/")[2:], "", "")[:2]
    with _lock:
        _seen[target] += 1
        _served[name] += 1
    if what == "die":
        return False
    if name.rsplit(maxsplit=1)[-1].startswith("slow"):
        time.sleep(SLOW)
    if what == "hold":
        _event(argument).wait(60)
    status = argument if what == "status" else "200"
    peer.sendall(
        f"HTTP/1.1 {status} X\r\nx-backend: {name}\r\ncontent-length: 2\r\n\r\nok".encode()
    )
    return True


def main() -> None:
    commands: dict[str, Callable[..., Any]] = {
        "start": start,
        "stop": stop,
        "release": release,
        "counts": counts,
    }
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": commands[command["do"]](*command["with"])}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
