# SPDX-License-Identifier: Apache-2.0
"""l7-envoyfilter.yaml in a real, unmodified Envoy: what comes in with a PROXY header goes on as through HBONE.

Istio's waypoint has an internal listener, main_internal, which routes by the original destination that it is
handed as filter state; a stand-in for it here says what it was handed.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.conftest import until

TYPE = "type.googleapis.com/envoy.extensions"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def patch(checkout: Path) -> dict[str, Any]:
    """The listener that the filter adds."""
    text = (checkout / "helm" / "manifests" / "l7-envoyfilter.yaml").read_text()
    (change,) = yaml.safe_load(text)["spec"]["configPatches"]
    assert (change["applyTo"], change["patch"]["operation"]) == ("LISTENER", "ADD")
    found: dict[str, Any] = change["patch"]["value"]
    return found


def main_internal() -> dict[str, Any]:
    said = "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        "route_config": {
            "response_headers_to_add": [{"header": {"key": "x-told", "value": said}}],
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ],
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    original = {"@type": f"{TYPE}.filters.listener.original_dst.v3.OriginalDst"}
    return {
        "name": "main_internal",
        "internal_listener": {},
        "listener_filters": [{"name": "original_dst", "typed_config": original}],
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def config(listener: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"envoy_internal_address": {"server_listener_name": "main_internal"}}
    raw = {
        "name": "raw",
        "typed_config": {"@type": f"{TYPE}.transport_sockets.raw_buffer.v3.RawBuffer"},
    }
    upstream = f"{TYPE}.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"
    cluster = {
        "name": "main_internal",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "main_internal",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}],
        },
        "transport_socket": {
            "name": "internal",
            "typed_config": {"@type": upstream, "transport_socket": raw},
        },
    }
    internal = {"@type": f"{TYPE}.bootstrap.internal_listener.v3.InternalListener"}
    return {
        "static_resources": {"listeners": [listener, main_internal()], "clusters": [cluster]},
        "bootstrap_extensions": [{"name": "internal", "typed_config": internal}],
    }


@pytest.fixture
def port(checkout: Path, tmp_path: Path) -> Iterator[int]:
    """An Envoy with the listener, at a free port of this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    listener = patch(checkout)
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": number}
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(config(listener)))
    argv = [str(checkout / ".venv/bin/envoy"), "-c", str(path), "--concurrency", "1"]
    log = tmp_path / "log"
    with (
        log.open("w") as stream,
        subprocess.Popen([*argv, "--disable-hot-restart"], stdout=stream, stderr=stream) as envoy,
    ):
        try:
            until(lambda: "starting workers" in log.read_text(), "Envoy does not start")
            assert envoy.poll() is None, log.read_text()[-2000:]
            yield number
        finally:
            envoy.kill()


def header(source: str, destination: str, number: int) -> bytes:
    """A PROXY v2 header of a TCP connection."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    family = 0x11 if len(addresses) == 8 else 0x21
    body = addresses + (40000).to_bytes(2, "big") + number.to_bytes(2, "big")
    return SIGNATURE + bytes([0x21, family]) + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("source", "destination", "told"),
    [
        ("10.244.0.9", "10.96.0.10", "10.96.0.10:80 10.244.0.9"),
        ("fd00::9", "fd00:96::10", "[fd00:96::10]:80 fd00::9"),
    ],
)
def test_original_destination_and_source_reach_the_waypoints_own_listener(
    port: int, source: str, destination: str, told: str
) -> None:
    request = b"GET / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n"

    def ask() -> bytes:
        """Nothing, while a worker of Envoy has this listener and not yet the other one."""
        answer = b""
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(header(source, destination, 80) + request)
            while part := client.recv(65536):
                answer += part
        return answer

    lines = until(ask, "no answer").decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert f"x-told: {told}" in lines
