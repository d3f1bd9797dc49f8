# SPDX-License-Identifier: Apache-2.0
"""HTTP servers at given addresses, which answer with what they were asked: `backend.py HOST:PORT...`.

`x-fail: N` has the first N requests of that `x-id` answered with 503; `x-hang` keeps a request without an answer for
that many seconds. `GET /~seen` tells what came to that address, shadows of mirrored requests included.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_seen: defaultdict[str, list[str]] = defaultdict(list)
_tries: Counter[str] = Counter()


class _Telling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host, port, *_ = self.connection.getsockname()
        here = f"{host}:{port}"
        if self.path == "/~seen":
            self._answer(200, _seen[here])
            return
        name = self.headers.get("x-id", "")
        _seen[here].append(f"{self.path} {name}".strip())
        _tries[name] += 1
        if _tries[name] <= int(self.headers.get("x-fail", "0")):
            self._answer(503, {})
            return
        time.sleep(float(self.headers.get("x-hang", "0")))
        headers = {key.lower(): value for key, value in self.headers.items()}
        told = {"at": here, "path": self.path, "headers": headers, "tries": _tries[name]}
        self._answer(200, {**told, "from": self.client_address[0]})

    def _answer(self, status: int, told: Any) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    for place in sys.argv[1:]:
        host, _, port = place.rpartition(":")
        server = ThreadingHTTPServer((host, int(port)), _Telling)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("up", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
