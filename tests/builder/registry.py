# SPDX-License-Identifier: Apache-2.0
"""A registry with one image and an apt repository with one package, on a loopback address."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import unquote

_KIND = "application/vnd.docker.distribution.manifest.v2+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CONFIG = "application/vnd.docker.container.image.v1+json"


class Registry:
    """Serves `/v2/` (distribution spec, as far as a pull goes) and files below `/apt/`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._manifests: dict[str, bytes] = {}
        self._blobs: dict[str, Path] = {}
        self.asked: list[str] = []
        (place / "apt").mkdir(parents=True)
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.answer(self, body=self.command == "GET")

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_image(self, layer: Path) -> str:
        """Serve an image of one layer; returns its reference, by digest."""
        diff_id = self._add_blob(layer)
        config = self.place / "config.json"
        text = {"architecture": "amd64", "os": "linux", "config": {}}
        rootfs = {"type": "layers", "diff_ids": [diff_id]}
        history = [{"created": "1970-01-01T00:00:00Z", "created_by": "debian"}]
        config.write_text(json.dumps({**text, "rootfs": rootfs, "history": history}))
        parts = [(_CONFIG, config, self._add_blob(config)), (_LAYER, layer, diff_id)]
        described = [
            {"mediaType": kind, "size": path.stat().st_size, "digest": digest}
            for kind, path, digest in parts
        ]
        manifest = {"schemaVersion": 2, "mediaType": _KIND}
        data = json.dumps({**manifest, "config": described[0], "layers": described[1:]}).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._manifests[digest] = data
        return f"{self.host}/debian:12@{digest}"

    def _add_blob(self, path: Path) -> str:
        with path.open("rb") as stream:
            digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        self._blobs[digest] = path
        return digest

    def answer(self, request: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        self.asked.append(request.path)
        last = unquote(request.path.rpartition("/")[2])
        headers = {}
        if request.path == "/v2/":
            data: bytes | Path = b"{}"
        elif "/manifests/" in request.path and last in self._manifests:
            data = self._manifests[last]
            headers = {"Content-Type": _KIND, "Docker-Content-Digest": last}
        elif "/blobs/" in request.path and last in self._blobs:
            data = self._blobs[last]
        elif request.path.startswith("/apt/") and (self.place / "apt" / last).is_file():
            data = self.place / "apt" / last
        else:
            request.send_error(404)
            return
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        request.send_response(200)
        for name, value in {**headers, "Content-Length": str(size)}.items():
            request.send_header(name, value)
        request.end_headers()
        if body and isinstance(data, bytes):
            request.wfile.write(data)
        elif body and isinstance(data, Path):
            with data.open("rb") as stream:
                shutil.copyfileobj(stream, request.wfile)

    def add_package(self, files: Path, control: str) -> None:
        """Serve a Debian package, instead of what was served before.

        Args:
            files: its files.
            control: its fields (deb-control(5)).
        """
        (files / "DEBIAN").mkdir(exist_ok=True)
        (files / "DEBIAN" / "control").write_text(f"{control}\n")
        fields = dict(line.split(": ", 1) for line in control.splitlines() if line[0] != " ")
        name, version = fields["Package"], fields["Version"].replace(":", "%3a")
        deb = self.place / "apt" / f"{name}_{version}_{fields['Architecture']}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(files), str(deb)]
        subprocess.run(command, check=True, capture_output=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        entry = f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        (self.place / "apt" / "Packages").write_text(entry)
        index = hashlib.sha256(entry.encode()).hexdigest()
        release = f"Suite: test\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {index} {len(entry)} Packages\n"
        (self.place / "apt" / "Release").write_text(release)
