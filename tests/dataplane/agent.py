# SPDX-License-Identifier: Apache-2.0
"""A process that does as it is told: one JSON command a line in, one JSON answer a line out."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def serve(family: int, host: str, port: int, name: str, kind: str = "tcp") -> int:
    """Answer every connection (or datagram) with a name; returns the port."""
    stream = kind == "tcp"
    listener = socket.socket(FAMILIES[family], socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    if stream:
        listener.listen(1024)
    work = _answer_streams if stream else _answer_datagrams
    threading.Thread(target=work, args=(listener, name.encode()), daemon=True).start()
    return int(listener.getsockname()[1])


def _answer_streams(listener: socket.socket, name: bytes) -> None:
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(name)


def _answer_datagrams(listener: socket.socket, name: bytes) -> None:
    while True:
        _, peer = listener.recvfrom(2048)
        listener.sendto(name, peer)


def ask(family: int, host: str, port: int) -> dict[str, Any]:
    """Connect and read: who answered, and whom the socket says that it is connected to."""
    with socket.socket(FAMILIES[family], socket.SOCK_STREAM) as client:
        client.settimeout(10)
        try:
            client.connect((host, port))
        except OSError as error:
            return {"errno": error.errno or -1}
        peer = list(client.getpeername()[:2])
        return {"answer": client.recv(100).decode(), "peer": peer}


def ask_nonblocking(family: int, host: str, port: int) -> int:
    """What connect() says on a non-blocking socket."""
    with socket.socket(FAMILIES[family], socket.SOCK_STREAM) as client:
        client.setblocking(False)
        return client.connect_ex((host, port))


def tally(family: int, host: str, port: int, count: int) -> dict[str, int]:
    """Who answered how often."""
    return dict(Counter(_one(family, host, port) for _ in range(count)))


def _one(family: int, host: str, port: int) -> str:
    answer = ask(family, host, port)
    return str(answer.get("answer", f"errno {answer.get('errno')}"))


def reconnect(family: int, first: list[Any], second: list[Any]) -> list[Any]:
    """Connect one datagram socket to two places in turn; its peer after each."""
    with socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as client:
        peers = []
        for host, port in (first, second):
            client.connect((host, port))
            peers.append(list(client.getpeername()[:2]))
        return peers


def send(family: int, places: list[list[Any]]) -> list[Any]:
    """Send a datagram to each place in turn from one unconnected socket: who answered, from where."""
    with socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        return [_exchange(client, host, port) for host, port in places]


def _exchange(client: socket.socket, host: str, port: int) -> dict[str, Any]:
    try:
        client.sendto(b"?", (host, port))
    except OSError as error:
        return {"errno": error.errno}
    answer, sender = client.recvfrom(100)
    return {"answer": answer.decode(), "from": list(sender[:2])}


_kept: list[socket.socket] = []


def keep(family: int) -> int:
    """Make an unconnected datagram socket that stays; its number."""
    client = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    client.settimeout(10)
    _kept.append(client)
    return len(_kept) - 1


def send_kept(number: int, host: str, port: int) -> dict[str, Any]:
    return _exchange(_kept[number], host, port)


def send_connected(family: int, host: str, port: int) -> dict[str, Any]:
    """Connect a datagram socket, then send: who answered, from where, and the socket's peer."""
    with socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        try:
            client.connect((host, port))
        except OSError as error:
            return {"errno": error.errno}
        client.send(b"?")
        answer, sender = client.recvfrom(100)
        peer = list(client.getpeername()[:2])
        return {"answer": answer.decode(), "from": list(sender[:2]), "peer": peer}


def draw(family: int, host: str, port: int, count: int) -> dict[str, int]:
    """Connect datagram sockets, which sends nothing; how often each peer was chosen."""
    found: Counter[str] = Counter()
    for _ in range(count):
        with socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as client:
            client.connect((host, port))
            found[client.getpeername()[0]] += 1
    return dict(found)


def http(family: int, host: str, port: int, path: str, times: int = 1) -> list[Any]:
    """GET a path on one connection, so often: each response's status and body."""
    client = HTTPConnection(host, port, timeout=10)
    client.sock = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    client.sock.settimeout(10)
    client.sock.connect((host, port))
    answers = []
    for _ in range(times):
        client.request("GET", path)
        response = client.getresponse()
        answers.append([response.status, response.read().decode()])
    client.close()
    return answers


def http_or_errno(family: int, host: str, port: int, path: str) -> Any:
    """The same once; the error's number where there is one."""
    try:
        return http(family, host, port, path)
    except OSError as error:
        return error.errno


_begun: list[socket.socket] = []


def begin(family: int, host: str, port: int) -> bool:
    """Begin to connect, and go on with it; whether nothing comes back."""
    client = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    client.setblocking(False)
    client.connect_ex((host, port))
    _begun.append(client)
    return not select.select([], [client], [], 0.3)[1]


def exchange(family: int, host: str, port: int, chunks: list[str], size: int) -> str:
    """Send chunks one by one and read an answer of a size, as hexadecimal."""
    with socket.socket(FAMILIES[family], socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect((host, port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for chunk in chunks:
            client.sendall(chunk.encode())
        client.shutdown(socket.SHUT_WR)
        found = b""
        while len(found) < size and (more := client.recv(65536)):
            found += more
        return found.hex()


def serve_echo(family: int, host: str) -> int:
    """Send back all that a connection sent, once it has ended; returns the port."""
    listener = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(100)
    threading.Thread(target=_echo, args=(listener,), daemon=True).start()
    return int(listener.getsockname()[1])


def _echo(listener: socket.socket) -> None:
    while True:
        peer, _ = listener.accept()
        with peer:
            found = b""
            while more := peer.recv(65536):
                found += more
            peer.sendall(found)


class _Telling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"backend {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing: what this process prints are its answers."""


def serve_http(host: str) -> int:
    """An HTTP server whose answers tell the path; returns the port."""
    server = ThreadingHTTPServer((host, 0), _Telling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def waiting(family: int, host: str, port: int) -> list[int]:
    """FIONREAD on a connection after its second request was answered, and how much recv gives."""
    with socket.socket(FAMILIES[family], socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect((host, port))
        for _ in range(2):
            client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            select.select([client], [], [], 10)
            time.sleep(0.1)  # the head and the body of an answer may come apart
            counted = struct.unpack("i", fcntl.ioctl(client, termios.FIONREAD, bytes(4)))[0]
            got = len(client.recv(65536))
        return [counted, got]


def end_of(family: int, host: str, size: int, ending: str) -> int:
    """Echo one connection's first bytes, so many of them, then end it in a given way; the port."""
    listener = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen()
    threading.Thread(target=_end_one, args=(listener, size, ending), daemon=True).start()
    return int(listener.getsockname()[1])


def _end_one(listener: socket.socket, size: int, ending: str) -> None:
    with listener, listener.accept()[0] as peer:
        for _ in _parts(peer, size, peer.sendall):
            pass
        if ending != "server":
            with contextlib.suppress(ConnectionResetError):
                peer.recv(1)


def _parts(
    connection: socket.socket, size: int, take: Callable[[bytes], None] = lambda _: None
) -> Iterator[int]:
    """Read so many bytes; how many each time."""
    while size and (part := connection.recv(min(size, 65536))):
        take(part)
        size -= len(part)
        yield len(part)


def end(family: int, host: str, port: int, size: int, ending: str) -> int:
    """Send so many bytes to `end_of`, have them back, and end in a given way; how many came."""
    with socket.socket(FAMILIES[family], socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect((host, port))
        sender = threading.Thread(target=client.sendall, args=(bytes(size),))
        sender.start()
        got = _arrived(client, size) if ending == "unread" else sum(_parts(client, size))
        sender.join()
        if ending == "half":
            client.shutdown(socket.SHUT_WR)
        if ending in ("half", "server"):
            got += len(client.recv(1))
        if ending == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return got


def _arrived(client: socket.socket, size: int) -> int:
    """Wait until so many bytes wait to be read."""
    waiting = array.array("i", [0])
    while waiting[0] < size:
        time.sleep(0.001)
        fcntl.ioctl(client, termios.FIONREAD, waiting)
    return waiting[0]


_held: list[socket.socket] = []


def hold(family: int, host: str, port: int) -> int:
    """Connect and stay connected; the connection's number."""
    _held.append(socket.create_connection((host, port), timeout=10))
    return len(_held) - 1


def let_go(number: int) -> None:
    _held[number].close()


COMMANDS = {
    function.__name__: function
    for function in (
        serve,
        ask,
        ask_nonblocking,
        tally,
        reconnect,
        send,
        keep,
        send_kept,
        send_connected,
        draw,
        http,
        http_or_errno,
        begin,
        exchange,
        serve_echo,
        waiting,
        serve_http,
        end_of,
        end,
        hold,
        let_go,
    )
}


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": COMMANDS[request["do"]](*request["with"])}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
