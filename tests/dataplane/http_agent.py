# SPDX-License-Identifier: Apache-2.0
"""HTTP clients and servers as processes that do as they are told (see agent.py)."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import resource
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.dataplane import http_backend, http_recorder
from tests.dataplane.far_memory import FarMemory

WAIT = 60  # seconds until a client gives up: a hang is a failure, and never a hung test


class Client:
    """One connection, read byte by byte as the responses say."""

    def __init__(self, host: str, port: int, source: int = 0) -> None:
        self.sock = socket.create_connection(
            (host, port), timeout=WAIT, source_address=("", source)
        )
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.sock.makefile("rb")

    def ask(self, target: str, **extra: Any) -> list[Any]:
        self.sock.sendall(request(target, **extra))
        return self.response(extra.get("method", "GET"))

    def response(self, method: str = "GET") -> list[Any]:
        """[status, who answered, for which target, a digest of the body, its length]."""
        head = http_backend.read_head(self.stream)
        if head is None:
            return ["end"]
        line, headers = head
        status = int(line.split(" ")[1])
        if method == "HEAD" or status in (204, 304) or status // 100 == 1:
            content = b""
        elif "content-length" in headers or "transfer-encoding" in headers:
            content = http_backend.read_body(self.stream, headers)
        else:
            content = self.stream.read()
        who = headers.get("x-backend", headers.get("x-kmesh-reason", ""))
        digest = hashlib.sha256(content).hexdigest()[:16]
        return [status, who, headers.get("x-target", ""), digest, len(content)]

    def whole_response(self, *, head_only: bool) -> list[Any]:
        """[status, backend, target, location, the gate's reason, whether the connection stays]."""
        head = http_backend.read_head(self.stream)
        if head is None:
            return [0, "", "", "", "", False]
        line, headers = head
        if not head_only:
            http_backend.read_body(self.stream, headers)
        names = ("x-backend", "x-target", "location", "x-kmesh-reason")
        fields = [headers.get(name, "") for name in names]
        return [int(line.split(" ")[1]), *fields, headers.get("connection") != "close"]

    def rest(self) -> str:
        found = b""
        try:
            while more := self.stream.read1(65536):
                found += more
        except ConnectionResetError:
            pass
        return found.decode("latin-1")

    def at_end(self) -> bool:
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


def request(
    target: str, *, method: str = "GET", size: int = 0, chunked: bool = False, headers: str = "",
    host: str = "a.example",
) -> bytes:  # fmt: skip
    content = http_backend.body(size)
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}"
    if chunked:
        parts = [content[at : at + 3000] for at in range(0, size, 3000)]
        packed = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + packed + b"0\r\n\r\n"
    if size:
        head += f"Content-Length: {size}\r\n"
    return head.encode() + b"\r\n" + content


def serve(host: str, name: str, port: int = 0) -> int:
    return http_backend.serve(host, port, name)


_clients: list[Client] = []
_many: list[socket.socket] = []


def connect(host: str, port: int, source: int = 0) -> int:
    _clients.append(Client(host, port, source))
    return len(_clients) - 1


def ask(number: int, target: str, extra: dict[str, Any] | None = None) -> list[Any]:
    return _clients[number].ask(target, **(extra or {}))


def peer(number: int) -> list[Any]:
    return list(_clients[number].sock.getpeername()[:2])


def close(number: int) -> None:
    _clients[number].close()


def abort(number: int) -> None:
    sock = _clients[number].sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _clients[number].close()


def send(number: int, data: str) -> None:
    _clients[number].sock.sendall(data.encode("latin-1"))


_crowds: dict[int, list[socket.socket]] = {}


def crowded(host: str) -> int:
    """A port where others wait already: a connection is not established before they are let in."""
    listener = socket.create_server((host, 0), backlog=0)
    port = int(listener.getsockname()[1])
    _crowds[port] = [listener, socket.create_connection((host, port))]
    return port


def let_in(port: int) -> None:
    _crowds[port].append(_crowds[port][0].accept()[0])


def record(host: str, name: str) -> int:
    return http_recorder.record(host, name)


def connections() -> int:
    return http_recorder.connections()


def recorded() -> list[tuple[str, str, str]]:
    return http_recorder.recorded()


def statuses(host: str, port: int, parts: list[str], warmth: list[str]) -> list[str]:
    """Bytes in parts on one connection, after some requests: who answered, or with which status."""
    client = Client(host, port)
    for target in warmth:
        client.ask(target)
    try:
        for part in parts:
            client.sock.sendall(part.encode("latin-1"))
        client.sock.shutdown(socket.SHUT_WR)
    except OSError:  # refused already
        pass
    found = client.rest()
    client.close()
    heads = [head for head in found.split("HTTP/1.1 ")[1:] if not head.startswith("1")]
    who = [head.partition("x-backend: ")[2][:1] for head in heads]
    return [name or head[:3] for name, head in zip(who, heads, strict=True)]


_kept: list[Client | None] = [None] * 6


def ask_many(host: str, port: int, requests: list[str], seed: int) -> list[list[Any]]:
    """Requests on connections that are kept, cut at random: status, backend, target, location, why."""
    draw = random.Random(seed)
    answers = []
    for text in requests:
        place = draw.randrange(len(_kept))
        client = _kept[place] or Client(host, port)
        data = text.encode("latin-1")
        if draw.random() < 0.9:
            client.sock.sendall(data)
        else:
            _send_cut(client.sock, data, draw, longest=60)
        answer = client.whole_response(head_only=text.startswith("HEAD "))
        keeps = answer.pop()
        if not keeps:
            client.close()
        _kept[place] = client if keeps else None
        answers.append(answer)
    return answers


_far: dict[int, tuple[FarMemory, threading.Thread]] = {}


def send_from_afar(number: int, data: str) -> str:
    """Send what is in no memory yet, and so lock the socket until `bring`; why not, if not."""
    try:
        memory = FarMemory(data.encode("latin-1"))
    except OSError as error:
        return str(error)
    sent = (_clients[number].sock.fileno(), ctypes.c_void_p(memory.address), memory.size, 0)
    thread = threading.Thread(target=ctypes.CDLL(None).send, args=sent, daemon=True)
    _far[number] = memory, thread
    thread.start()
    return "" if memory.wait_until_wanted(WAIT) else "nobody reads it"


def bring(number: int) -> None:
    memory, thread = _far.pop(number)
    memory.bring()
    thread.join(WAIT)
    memory.close()


def end_sending(number: int) -> None:
    _clients[number].sock.shutdown(socket.SHUT_WR)


def read(number: int, method: str = "GET") -> list[Any]:
    return _clients[number].response(method)


def raw(number: int, method: str = "GET") -> str:
    """A whole response in its bytes."""
    stream, found = _clients[number].stream, b""
    while not found.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return found.decode("latin-1")
        found += line
    length = found.lower().partition(b"content-length: ")[2].split()[:1]
    if length and method != "HEAD":
        found += stream.read(int(length[0]))
    return found.decode("latin-1")


def head(number: int) -> str:
    """The first line of a head, which is read to its end."""
    found = http_backend.read_head(_clients[number].stream)
    return found[0] if found else ""


def take(number: int, length: int) -> str:
    return _clients[number].stream.read(length).decode("latin-1")


def many(host: str, port: int, count: int) -> int:
    """Connections that stay, each with one answered request; how many were answered."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    data, good = request("/size/1"), 0
    for _ in range(count):
        sock = socket.create_connection((host, port), timeout=WAIT)
        sock.sendall(data)
        good += sock.recv(1000).startswith(b"HTTP/1.1 200")
        _many.append(sock)
    return good


def at_end(number: int) -> bool:
    return _clients[number].at_end()


def rest(number: int) -> str:
    return _clients[number].rest()


def send_buffer(number: int, size: int) -> None:
    """That it sends what it says in one message, though its kernel's default is less."""
    _clients[number].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def block(number: int) -> None:
    """Have its reads block, as those of most programs do."""
    _clients[number].sock.settimeout(None)


def whole(host: str, port: int, data: str, after: str = "end") -> str:
    """Send bytes on a connection of their own and read until the end."""
    client = Client(host, port)
    client.sock.sendall(data.encode("latin-1"))
    if after == "end":
        client.sock.shutdown(socket.SHUT_WR)
    found = client.stream.read()
    client.close()
    return found.decode("latin-1")


def pieces(host: str, port: int, data: str, cuts: list[int]) -> list[Any]:
    """Send bytes in pieces cut at places, each in a segment of its own, and read one response."""
    client = Client(host, port)
    raw, at = data.encode("latin-1"), 0
    for cut in [*cuts, len(raw)]:
        client.sock.sendall(raw[at:cut])
        at = cut
        time.sleep(0.002)
    answer = client.response(data.split(" ", 1)[0])
    client.close()
    return answer


def pipeline(host: str, port: int, targets: list[str], extra: dict[str, Any]) -> list[Any]:
    """Send all requests at once, then read all responses."""
    client = Client(host, port)
    data = b"".join(request(target, **extra) for target in targets)
    threading.Thread(target=client.sock.sendall, args=(data,), daemon=True).start()
    answers = [client.response() for _ in targets]
    client.close()
    return answers


def overlap(host: str, port: int, targets: list[str], connections: int, seed: int) -> list[str]:
    """Requests without waiting for responses, a moment after each other; responses not in their order."""
    draw, wrong = random.Random(seed), []
    heads = [request(target) for target in targets]
    for _ in range(connections):
        client = Client(host, port)
        alone = [client.ask(target)[0] for target in targets]
        for _ in range(4):
            for head in heads:
                client.sock.sendall(head)
                until = time.perf_counter() + draw.random() * 100e-6
                while time.perf_counter() < until:
                    pass
            told = [client.response()[0] for _ in targets]
            if told != alone:
                wrong.append(str(told))
        client.close()
    return wrong


def ask_beside_reader(host: str, port: int, target: str, count: int) -> None:
    """One request after the other, while another thread tries to read whatever there may be."""
    client, head, sizes = Client(host, port), request(target), []
    client.ask(target)
    client.sock.sendall(head)
    size = len(client.sock.recv(65536))
    bare = client.sock.dup()
    bare.setblocking(False)  # with a timeout Python would wait before it reads
    read, at_end = threading.Event(), threading.Event()

    def work() -> None:
        while not at_end.is_set():
            try:
                sizes.append(len(bare.recv(65536)))
                read.set()
            except BlockingIOError:
                pass

    sys.setswitchinterval(20e-6)  # they are to be at it at the same time
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(count):
        read.clear()
        client.sock.sendall(head)
        if not read.wait(WAIT):
            break
    at_end.set()
    thread.join()
    bare.close()
    client.close()
    if sizes != [size] * count:
        raise RuntimeError(f"{len(sizes)} of {count} responses")


def slow_reader(host: str, port: int, target: str, pause: float) -> list[Any]:
    client = Client(host, port)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    client.sock.sendall(request(target))
    time.sleep(pause)
    answer = client.response()
    client.close()
    return answer


def storm(host: str, port: int, seed: int, connections: int, requests: int, most: int) -> list[str]:
    """Many connections with random requests; what went wrong, in words."""
    wrong: list[str] = []
    threads = [
        threading.Thread(target=_storm_one, args=(host, port, seed + n, requests, most, wrong))
        for n in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT * 2)
        if thread.is_alive():
            wrong.append("a connection hangs")
    return wrong


def _storm_one(host: str, port: int, seed: int, requests: int, most: int, wrong: list[str]) -> None:
    draw = random.Random(seed)
    try:
        client = Client(host, port)
    except OSError as error:
        wrong.append(f"seed {seed}: {error!r} as it connects")
        return
    try:
        for number in range(requests):
            where = draw.choice("ab")
            size = draw.choice((0, 1, 100, draw.randrange(most)))
            up = draw.choice((0, 0, 1, draw.randrange(most)))
            kind = draw.choice(("size", "size", "chunked", "echo"))
            target = f"/{where}/{kind}/{size}?{seed}.{number}"
            data = request(
                target, method="POST" if up else "GET", size=up, chunked=draw.random() < 0.2
            )
            _send_cut(client.sock, data, draw)
            answer = client.response()
            length = up if kind == "echo" else size
            digest = hashlib.sha256(http_backend.body(length)).hexdigest()[:16]
            if answer != [200, where, target, digest, length]:
                wrong.append(f"{target}: {answer} instead of {length} bytes")
                return
    except (OSError, ValueError) as error:  # the latter: a body was cut off
        wrong.append(f"seed {seed}: {error!r}")
    finally:
        client.close()


def _send_cut(sock: socket.socket, data: bytes, draw: random.Random, longest: int = 2000) -> None:
    """In as many pieces as it pleases; of long ones another thread sends, as the response may come first."""
    if len(data) > 200_000:
        threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
        return
    at = 0
    while at < len(data):
        step = draw.choice((len(data), draw.randrange(1, longest)))
        sock.sendall(data[at : at + step])
        at += step


def load(host: str, port: int, targets: list[str], connections: int, seconds: float) -> list[Any]:
    """Requests one after the other on each connection; how many were answered, and by whom."""
    counts: dict[str, int] = {}
    end = time.monotonic() + seconds
    poll = select.epoll()
    clients = {}
    for n in range(connections):
        client = Client(host, port)
        clients[client.sock.fileno()] = client
        poll.register(client.sock, select.EPOLLIN)
        client.sock.sendall(request(targets[n % len(targets)]))
    total = 0
    while time.monotonic() < end:
        for fileno, _ in poll.poll(1):
            answer = clients[fileno].response()
            counts[str(answer[1])] = counts.get(str(answer[1]), 0) + 1
            total += 1
            clients[fileno].sock.sendall(request(targets[total % len(targets)]))
    for client in clients.values():
        client.close()
    return [total, counts]


def pid() -> int:
    return os.getpid()


COMMANDS = {
    function.__name__: function
    for function in (
        serve, connect, ask, crowded, let_in, peer, close, abort, send, end_sending, read, raw, head, take, many,
        at_end, block, whole, rest, send_from_afar, bring, send_buffer,
        ask_many, statuses, record, recorded, connections,
        pieces, pipeline, overlap, slow_reader, ask_beside_reader, storm, load, pid,
    )
}  # fmt: skip


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": COMMANDS[command["do"]](*command["with"])}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
