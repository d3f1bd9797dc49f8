# SPDX-License-Identifier: Apache-2.0
"""The configuration of an Envoy that does as little as a proxy of HTTP can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ci.bench.stage import BIN


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def envoy(config: Path) -> list[str]:
    """The command of an Envoy with one thread, beside others."""
    options = ("--concurrency", "1", "--use-dynamic-base-id", "-l", "off")
    return [str(BIN / "envoy"), "-c", str(config), *options]


def http_proxy(
    listens: tuple[str, int],
    target: tuple[str, int],
    *,
    answers: str = "",
    prefixes: Sequence[str] = ("/",),
) -> dict[str, Any]:
    """An HTTP proxy with no log and no filter but the router.

    Args:
        listens: its address and port.
        target: where all routes lead.
        answers: a path that it answers itself, if any.
        prefixes: of paths, one for each route.
    """
    types = "type.googleapis.com/envoy.extensions.filters"
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": f"{types}.http.router.v3.Router",
            "suppress_envoy_headers": True,
        },
    }
    routes: list[dict[str, Any]] = [
        {"match": {"prefix": prefix}, "route": {"cluster": "c", "timeout": "0s"}}
        for prefix in prefixes
    ]
    if answers:
        direct = {"status": 200, "body": {"inline_string": "here"}}
        routes.insert(0, {"match": {"path": answers}, "direct_response": direct})
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "http_filters": [router],
            "route_config": {
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]
            },
        },
    }
    endpoint = {"endpoint": {"address": _address(*target)}}
    cluster = {
        "name": "c",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"address": _address(*listens), "filter_chains": [{"filters": [manager]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
