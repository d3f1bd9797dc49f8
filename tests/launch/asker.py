# SPDX-License-Identifier: Apache-2.0
"""A client of HTTP services that does as it is told: one JSON command a line in, one JSON answer a line out."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

_connections: list[http.client.HTTPConnection] = []
_answers: Counter[str] = Counter()


def connect(host: str, port: int = 80) -> int:
    made = http.client.HTTPConnection(host, port, timeout=20)
    made.connect()
    made.auto_open = 0
    _connections.append(made)
    return len(_connections) - 1


def _answer(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> list[Any]:
    """Status and body; status 0 and the error's name where the connection failed."""
    try:
        connection.request(method, path)
        found = connection.getresponse()
        return [found.status, found.read().decode()]
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return [0, type(error).__name__]


def ask(number: int, path: str, method: str = "GET") -> list[Any]:
    return _answer(_connections[number], path, method)


def try_once(host: str, path: str, method: str = "GET") -> list[Any]:
    """On a connection of its own."""
    try:
        number = connect(host)
    except OSError as error:
        return [0, type(error).__name__]
    found = ask(number, path, method)
    _connections[number].close()
    return found


def load(host: str, path: str) -> None:
    """Ask again and again, on one connection as long as it lasts."""
    threading.Thread(target=_ask_on, args=(host, path), daemon=True).start()


def _ask_on(host: str, path: str) -> None:
    while True:
        connection = http.client.HTTPConnection(host, 80, timeout=20)
        found: list[Any] = [200, ""]
        while found[0]:
            found = _answer(connection, path)
            _answers[" ".join(map(str, found))] += 1


def knock(host: str, path: str) -> None:
    """Ask again and again, each time on a connection of its own."""
    threading.Thread(target=_knock_on, args=(host, path), daemon=True).start()


def _knock_on(host: str, path: str) -> None:
    while True:
        connection = http.client.HTTPConnection(host, 80, timeout=20)
        _answers[" ".join(map(str, _answer(connection, path)))] += 1
        connection.close()


def loaded() -> dict[str, int]:
    return dict(_answers)


_CALLS: dict[str, Callable[..., Any]] = {
    "connect": connect, "ask": ask, "try": try_once, "load": load, "knock": knock, "loaded": loaded,
}  # fmt: skip


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": _CALLS[request["do"]](*request["with"])}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
