# SPDX-License-Identifier: Apache-2.0
"""A process that holds connections: one JSON command a line in, one JSON answer a line out.

Managed (`kmesh exec -- python held.py`) it is the client, outside of any cgroup the server.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter
from typing import Any

_held: list[socket.socket] = []
_load_ends = threading.Event()
_answers: Counter[str] = Counter()
_loaders: list[threading.Thread] = []


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def echo(kind: str, host: str, port: int, name: str) -> int:
    """Answer whatever comes with a name, a space and the same; for ever."""
    stream = kind == "tcp"
    server = socket.socket(_family(host), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    if stream:
        server.listen(1024)
    work = _echo_streams if stream else _echo_datagrams
    threading.Thread(target=work, args=(server, name.encode()), daemon=True).start()
    return int(server.getsockname()[1])


def _echo_streams(server: socket.socket, name: bytes) -> None:
    while True:
        peer, _ = server.accept()
        threading.Thread(target=_echo_stream, args=(peer, name), daemon=True).start()


def _echo_stream(peer: socket.socket, name: bytes) -> None:
    with peer:
        try:
            while said := peer.recv(65536):
                peer.sendall(name + b" " + said)
        except OSError:
            return


def _echo_datagrams(server: socket.socket, name: bytes) -> None:
    while True:
        said, peer = server.recvfrom(65536)
        server.sendto(name + b" " + said, peer)


def connect(kind: str, host: str, port: int, source: str = "") -> Any:
    """Hold a connection, of a datagram socket too; its number, or the error's name."""
    stream = kind == "tcp"
    held = socket.socket(_family(host), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    held.settimeout(20)
    try:
        if source:
            held.bind((source, 0))
        held.connect((host, port))
    except OSError as error:
        held.close()
        return type(error).__name__
    _held.append(held)
    return len(_held) - 1


def loose(family: int) -> int:
    """Hold a datagram socket without a peer; its number."""
    held = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    held.settimeout(20)
    _held.append(held)
    return len(_held) - 1


def say(number: int, text: str) -> str:
    """Send and read on a connection: the answer in hexadecimal."""
    _held[number].sendall(text.encode())
    return _held[number].recv(65536).hex()


def hear(number: int, ending: str) -> str:
    """Read until this has come: what a stream gives in one piece is the kernel's to choose."""
    heard = b""
    while not heard.endswith(ending.encode()):
        more = _held[number].recv(65536)
        if not more:
            break
        heard += more
    return heard.hex()


def send_to(number: int, host: str, port: int, text: str) -> list[Any]:
    """The answer to a datagram, and whom it is from."""
    _held[number].sendto(text.encode(), (host, port))
    answer, sender = _held[number].recvfrom(65536)
    return [answer.decode(), *sender[:2]]


def peer(number: int) -> list[Any]:
    return list(_held[number].getpeername()[:2])


def close(number: int) -> None:
    _held[number].close()


def load(host: str, port: int) -> None:
    """Begin to connect, ask and leave, again and again."""
    _load_ends.clear()
    worker = threading.Thread(target=_ask_on, args=(host, port), daemon=True)
    worker.start()
    _loaders.append(worker)


def _ask_on(host: str, port: int) -> None:
    while not _load_ends.is_set():
        try:
            with socket.create_connection((host, port), timeout=20) as one:
                one.sendall(b"?")
                _answers[one.recv(100).decode()] += 1
        except OSError as error:
            _answers[f"{type(error).__name__} {error.errno}"] += 1


def answers() -> dict[str, int]:
    """What the load was answered so far."""
    return dict(_answers)


def end_load() -> dict[str, int]:
    """The same, once it has ended."""
    _load_ends.set()
    for worker in _loaders:
        worker.join(30)
    _loaders.clear()
    found = dict(_answers)
    _answers.clear()
    return found


_COMMANDS = {
    each.__name__: each
    for each in (echo, connect, loose, say, hear, send_to, peer, close, load, answers, end_load)
}


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": _COMMANDS[request["do"]](*request["with"])}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
