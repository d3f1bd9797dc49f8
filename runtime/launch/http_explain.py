# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl explain --service`: what the daemon adds to the walk, which is names, and the live path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.control.explain_request import (
    HttpQuestion,
    agrees,
    explain_request,
    request_head,
    texts,
)
from runtime.control.routes import chosen
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.kernel.http_tables import HttpTables
from runtime.launch.http_seen import HttpSeen
from runtime.launch.http_try import From
from runtime.launch.managed import Managed
from runtime.model.mesh import IPAddress, Service
from runtime.tables.enhanced_layout import FrontendKey
from runtime.tables.http_ports import cluster_number, mapped

Json = Mapping[str, Any]
_TCP = 6


def explain_http(
    asked: Json, tables: HttpTables, *, view: View, seen: HttpSeen, managed: Managed | None
) -> Json:
    """Answer a question about a request, and send it if that is asked for.

    Args:
        asked: `service`, `method` and `target`; perhaps `port`, `headers`, `send` and `from`.
        tables: the kernel's.
        view: what is known.
        seen: what the path did.
        managed: who is managed.

    Raises:
        KmeshError: no such service, no routes there, no such request, or it cannot be sent.
    """
    service, address, port = _where(asked, tables, view)
    head = request_head(
        str(asked.get("method", "")), str(asked.get("target", "")), texts(asked.get("headers")),
        host=service.hostname, port=port,
    )  # fmt: skip
    clusters = view.http.copy().clusters if view.http else {}
    answer = explain_request(
        HttpQuestion(address=address, port=port, head=head),
        tables,
        routes=seen.routes(),
        ruling_of=seen.ruling_of,
        clusters={cluster_number(name): name for name in clusters},
    )
    answer = {"service": service.key, **answer, "live": None, "differs": []}
    if not asked.get("send"):
        return answer
    place = _place(str(asked.get("from") or ""), managed)
    live = seen.send(head, address=str(address), port=port, place=place)
    return {**answer, "live": live, "differs": agrees(answer, live)}


def _where(asked: Json, tables: HttpTables, view: View) -> tuple[Service, IPAddress, int]:
    """The first address and port of the service at which the kernel routes HTTP."""
    wanted = asked.get("port")
    for service in chosen(view.services.copy(), str(asked.get("service") or "")):
        ports = sorted({each.service_port for each in service.ports})
        for port in (wanted,) if isinstance(wanted, int) else ports:
            for each in service.addresses:
                key = FrontendKey(mapped(each.address), port.to_bytes(2, "big"), _TCP)
                if tables.lookup("http_ports", key.pack()) is not None:
                    return service, each.address, port
    on = f" at port {wanted}" if wanted else ""
    raise KmeshError(
        f"the kernel routes no HTTP for {asked.get('service')}{on}",
        hint="`kmeshctl routes` says what is routed where, and why",
    )


def _place(told: str, managed: Managed | None) -> From:
    """Where a request is sent from: the process or namespace that was named, or one that is managed."""
    if managed is None:
        raise KmeshError("nobody is managed yet: no request can be sent as a managed process")
    cgroup = next(map(Path, managed.cgroups), None)
    if told:
        return From(
            netns=Path(f"/proc/{told}/ns/net") if told.isdigit() else Path(told), cgroup=cgroup
        )
    own = Path("/proc/self/ns/net").stat().st_ino
    others = (path for path in managed.namespaces() if path.stat().st_ino != own)
    netns = next(others, None)
    if netns is None and cgroup is None:
        raise KmeshError(
            "nobody is managed: no request can be sent as a managed process",
            hint="name a process of a pod with --from PID, or enrol one",
        )
    return From(netns=netns, cgroup=cgroup)
