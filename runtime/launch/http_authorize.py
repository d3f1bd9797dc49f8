# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl authz check`: a question about a request and its client, as the daemon is asked it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from runtime.control.authorize_request import Asked, authorize
from runtime.control.explain_request import request_head, texts
from runtime.control.routes import chosen, plan_of
from runtime.control.view import View
from runtime.errors import KmeshError
from runtime.model.mesh import IPAddress, Protocol, Service
from runtime.model.policy import Identity
from runtime.plan.client import Client, identity_from
from runtime.plan.planned import Plan

Json = Mapping[str, Any]


def authorize_http(asked: Json, *, view: View, why_not: str, nameless: str = "") -> Json:
    """Answer whether a request is let through.

    Args:
        asked: `service`, `method` and `target`; perhaps `port`, `headers`, `principal`, `namespace`, `ip`.
        view: what is known.
        why_not: why the enhanced path does not run; "" where it does.
        nameless: why it is not known who the workloads of this node are; "" where it is.

    Raises:
        KmeshError: no such service or port, no such request or client.
    """
    plan = plan_of(view, why_not=why_not, nameless=nameless)
    service, address, port = _where(asked, plan, view)
    head = request_head(
        str(asked.get("method", "")), str(asked.get("target", "")), texts(asked.get("headers")),
        host=service.hostname, port=port,
    )  # fmt: skip
    question = Asked(service=service, address=address, port=port, head=head, client=_client(asked))
    return authorize(question, plan=plan, view=view)


def _where(asked: Json, plan: Plan | None, view: View) -> tuple[Service, IPAddress, int]:
    """The first address and port of the service where HTTP is known; else the first of all."""
    services = chosen(view.services.copy(), str(asked.get("service") or ""))
    places = [place for service in services for place in _places(service, asked.get("port"))]
    if not places:
        on = f" at port {asked['port']}" if asked.get("port") else ""
        raise KmeshError(
            f"{asked.get('service')} takes no TCP{on}", hint="`kmeshctl services` lists ports"
        )
    known = (place for place in places if plan and plan.port_of(place[1], place[2]))
    return next(known, places[0])


def _places(service: Service, wanted: object) -> Iterator[tuple[Service, IPAddress, int]]:
    for port in sorted({p.service_port for p in service.ports if p.protocol is Protocol.TCP}):
        if wanted in (None, port):
            for each in service.addresses:
                yield service, each.address, port


def _client(asked: Json) -> Client:
    principal, namespace = asked.get("principal"), asked.get("namespace")
    identity = identity_from(str(principal)) if principal else None
    if namespace and identity is None:
        identity = Identity("cluster.local", str(namespace), "default")
    if identity and namespace and identity.namespace != namespace:
        raise KmeshError(f"{identity.principal} is not in the namespace {namespace}")
    try:
        address = ip_address(str(asked["ip"])) if asked.get("ip") else None
    except ValueError as error:
        raise KmeshError(str(error), hint="--ip 10.0.0.1") from error
    return Client(identity, address)
