# SPDX-License-Identifier: Apache-2.0
"""Python's own HTTP client, urllib3 and requests."""

from __future__ import annotations

import http.client
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

HOST = sys.argv[1]
BIG = 10_000_000


def body(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def exchange(
    link: http.client.HTTPConnection, name: str, path: str, want: bytes, **extra: Any
) -> None:
    link.request(extra.pop("method", "GET"), f"/{name}/{path}", **extra)
    answer = link.getresponse()
    assert (answer.status, answer.headers["x-backend"], answer.read()) == (200, name, want), path


def own() -> None:
    link = http.client.HTTPConnection(HOST, timeout=60)
    for n in range(40):
        exchange(link, "ab"[n % 2], f"size/{n}", body(n))
    for size in (0, 10, 100_000, BIG):
        exchange(link, "a", "echo", body(size), method="POST", body=body(size))
        parts = [body(size)[at : at + 50_000] for at in range(0, size, 50_000)]
        exchange(
            link, "b", "echo", body(size), method="POST", body=iter(parts), encode_chunked=True
        )
        exchange(link, "a", f"chunked/{size}", body(size))
    exchange(link, "b", "size/50", b"", method="HEAD")
    exchange(link, "a", "size/5", body(5))
    link.close()


def urllib3_client() -> None:
    import urllib3

    with urllib3.PoolManager(maxsize=16, block=True) as pool, ThreadPoolExecutor(16) as threads:

        def ask(n: int) -> None:
            name = "ab"[n % 2]
            answer = pool.request("POST", f"http://{HOST}/{name}/echo", body=body(n * 99))
            assert (answer.headers["x-backend"], answer.data) == (name, body(n * 99))

        list(threads.map(ask, range(160)))


def requests_client() -> None:
    import requests

    with requests.Session() as session:
        for n in range(20):
            name = "ab"[n % 2]
            answer = session.get(f"http://{HOST}/{name}/size/{n * 1000}", timeout=60)
            assert (answer.headers["x-backend"], answer.content) == (name, body(n * 1000))


own()
urllib3_client()
requests_client()
print("ok")
