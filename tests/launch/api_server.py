# SPDX-License-Identifier: Apache-2.0
"""An API server without objects: `api_server.py FILE`. While FILE is there, policies may not be read."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PORT = 18001


class Handler(BaseHTTPRequestHandler):
    forbidden: Path

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.endswith("/httproutes"):
            self._say(404, {"message": "not found"})
        elif path.endswith("/authorizationpolicies") and self.forbidden.exists():
            self._say(403, {"message": "no right to list policies"})
        elif "watch=" in query:
            self._say(200, None)
        else:
            self._say(200, {"items": [], "metadata": {"resourceVersion": "1"}})

    def _say(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


def kubeconfig() -> str:
    """What leads there, from within its network namespace."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{PORT}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


if __name__ == "__main__":
    Handler.forbidden = Path(sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", PORT), Handler) as server:
        print("up", flush=True)
        server.serve_forever()
