# SPDX-License-Identifier: Apache-2.0
"""Programs that people use, as clients: kept connections, many at once, every kind of body.

Each checks each response itself (tests/dataplane/clients/).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.http_backend import body
from tests.dataplane.test_enhanced_streams import BIG, good
from tests.dataplane.world import VIP4, wait_for
from tests.plan.envoy_oracle import Envoy, cluster_wire, envoy

pytestmark = pytest.mark.root

CLIENTS = Path(__file__).with_name("clients")


def need(program: str) -> str:
    """Where a program is; nginx and Node are in ci/setup/test.packages, compilers are taken if they are there."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def check(stage: Stage, *command: str) -> None:
    """A client says that all was right, and the kernel took some of it; nothing stays behind."""
    before = stage.taken()
    done = stage.run(*command, VIP4, seconds=280)
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr[-3000:]
    assert stage.taken() > before + 20
    wait_for(lambda: stage.status()["sessions"] == 0, "no session is left")
    assert stage.status()["busy"] == 0


def test_python(routed: Stage) -> None:
    check(routed, sys.executable, str(CLIENTS / "client.py"))


def test_node(routed: Stage) -> None:
    check(routed, need("node"), str(CLIENTS / "client.js"))


def test_go(routed: Stage, tmp_path: Path) -> None:
    program = tmp_path / "client"
    subprocess.run(
        [need("go"), "build", "-o", str(program), str(CLIENTS / "client.go")],
        check=True,
        cwd=tmp_path,
    )
    check(routed, str(program))


def test_java(routed: Stage) -> None:
    need("javac")
    check(routed, need("java"), "-Xmx256m", str(CLIENTS / "Client.java"))


def curl(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = stage.run(need("curl"), "--silent", "--show-error", "--max-time", "250", *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_curl_keeps_its_connection(routed: Stage) -> None:
    before = routed.taken()
    urls = [f"http://{VIP4}/{'ab'[n % 2]}/size/{n}" for n in range(60)]
    each = [part for url in urls for part in ("-o", "/dev/null", url)]
    found = curl(routed, "-w", "%{http_code} %header{x-backend} %{num_connects}\n", *each)
    lines = found.stdout.split("\n")[:-1]
    assert [line.split()[:2] for line in lines] == [["200", "ab"[n % 2]] for n in range(60)]
    assert [line.split()[2] for line in lines] == ["1", *["0"] * 59]
    assert routed.taken() > before + 50


def test_curl_in_parallel_and_with_bodies(routed: Stage, tmp_path: Path) -> None:
    curl(routed, "--parallel", "--fail", "-o", f"{tmp_path}/#1-#2",
         f"http://{VIP4}/{{a,b}}/size/[1-60]")  # fmt: skip
    for name in "ab":
        for size in range(1, 61):
            assert (tmp_path / f"{name}-{size}").read_bytes() == body(size)
    sent = tmp_path / "sent"
    for size in (0, 10, 100_000, 10_000_000):
        sent.write_bytes(body(size))
        for extra in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]):
            got = tmp_path / "got"
            got.unlink(missing_ok=True)
            data = ["--data-binary", f"@{sent}", "-o", str(got), f"http://{VIP4}/a/echo"]
            curl(routed, "--fail", *extra, *data)
            assert (got.read_bytes() if size else b"") == body(size), (size, extra)
    assert "200 OK" in curl(routed, "--head", f"http://{VIP4}/b/size/50").stdout


NGINX = """
daemon off; master_process off; pid {scratch}/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path {scratch}; proxy_temp_path {scratch}; fastcgi_temp_path {scratch};
    uwsgi_temp_path {scratch}; scgi_temp_path {scratch};
    upstream service {{ server {host}:{port}; keepalive 16; }}
    server {{
        listen 127.0.0.1:8080;
        location / {{
            proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_buffering off;
        }}
    }}
}}
"""


@contextmanager
def nginx(stage: Stage, scratch: Path) -> Iterator[None]:
    program = need("nginx")
    (scratch / "nginx.conf").write_text(NGINX.format(scratch=scratch, host=VIP4, port=PORT))
    command = [
        *stage.as_client(),
        program,
        "-p",
        str(scratch),
        "-e",
        "stderr",
        "-c",
        str(scratch / "nginx.conf"),
    ]
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        wait_for((scratch / "pid").exists, "nginx runs")
        yield
    finally:
        process.kill()
        process.wait()


def test_nginx_as_a_proxy(routed: Stage, tmp_path: Path) -> None:
    before = routed.taken()
    with nginx(routed, tmp_path):
        user = routed.agent()
        assert user("storm", "127.0.0.1", 8080, 1, 8, 40, 100_000) == []
        number = user("connect", "127.0.0.1", 8080)
        assert user("ask", number, f"/a/size/{BIG}") == good("a", f"/a/size/{BIG}", BIG)
    assert routed.taken() > before + 20
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")


@contextmanager
def envoy_as_client(stage: Stage, checkout: Path, scratch: Path) -> Iterator[Envoy]:
    program = checkout / ".venv/bin/envoy"
    prefix = stage.as_client()
    service = cluster_wire("service", PORT, VIP4)
    with envoy(program, scratch, clusters=[service], prefix=prefix) as running:
        running.load(table(to("/", "service")))
        yield running


def test_envoy(routed: Stage, checkout: Path, tmp_path: Path) -> None:
    before = routed.taken()
    with envoy_as_client(routed, checkout, tmp_path) as running:
        heads = [
            f"POST /{'ab'[n % 2]}/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n".encode()
            + body(n)
            for n in range(600)
        ]
        answers = running.ask(heads)
    assert [one.backend for one in answers] == ["a", "b"] * 300
    assert routed.taken() > before + 200
    wait_for(lambda: routed.status()["sessions"] == 0, "no session is left")
