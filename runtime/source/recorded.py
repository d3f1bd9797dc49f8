# SPDX-License-Identifier: Apache-2.0
"""Recorded responses of Istiod as files: binary `DiscoveryResponse` and `DeltaDiscoveryResponse`.

Which of the two it is shows in its resources: those of the first have the type of the response. A
resource that cannot be accepted is refused by itself, as it would be on the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.model.mesh import Service
from runtime.source.envoy.decode import TYPE_URLS, RefusedError, decode
from runtime.source.istiod.ads.kinds import CLUSTERS, ENDPOINT_SETS, LISTENERS, TABLES
from runtime.source.istiod.decode_mesh import MeshDecoder
from runtime.source.istiod.decode_policy import decode_policy
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from runtime.source.istiod.wire import ADDRESS_TYPE, AUTHORIZATION_TYPE, BadResourceError, parse
from runtime.source.kubernetes_join import Identity
from runtime.source.kubernetes_yaml import Parsed

HTTP = {each.type_url: each.field for each in (CLUSTERS, ENDPOINT_SETS, LISTENERS, TABLES)}
TYPES = {field: type_url for type_url, field in HTTP.items()}
SERVICES, WORKLOADS, POLICIES = "services", "workloads", "policies"
KINDS = frozenset({*HTTP.values(), SERVICES, WORKLOADS, POLICIES})


def parse_recording(payload: bytes, *, file: str) -> Parsed:
    """Read a recorded response.

    Its resources are told as manifests of a file are, under (kind, "", name), where the kind is
    the name of the field of an `Update` or `HttpChange` that they go to.
    """
    parsed = Parsed()
    try:
        for number, (type_url, name, content) in enumerate(_resources(payload), start=1):
            _take(type_url, name, content, where=f"{file} resource {number}", parsed=parsed)
    except BadResourceError as error:
        parsed.refuse(file, str(error))
    return parsed


def _resources(payload: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Type, name ("" where the message alone tells it) and message of each resource."""
    response = parse(DiscoveryResponse, payload)
    if not response.type_url:
        raise BadResourceError("not a recorded discovery response: it tells no type")
    if any(each.type_url != response.type_url for each in response.resources):
        for each in parse(DeltaDiscoveryResponse, payload).resources:
            yield each.resource.type_url, each.name, each.resource.value
    else:
        for each in response.resources:
            yield each.type_url, "", each.value


def _take(type_url: str, name: str, content: bytes, *, where: str, parsed: Parsed) -> None:
    try:
        identity, made = _decode(type_url, name, content)
    except RefusedError as error:
        parsed.rejected[f"{where} ({error.resource})"] = str(error)
        parsed.bad.add((HTTP[type_url], "", error.resource))
    except BadResourceError as error:
        parsed.refuse(f"{where} ({name})" if name else where, str(error))
    else:
        if parsed.manifests.setdefault(identity, made) is not made:
            reason = "is in this file already; this one is not used"
            parsed.rejected[f"{where} ({identity[2]})"] = reason
        elif type_url in HTTP:
            parsed.payloads[identity] = content


def _decode(type_url: str, name: str, content: bytes) -> tuple[Identity, Any]:
    if type_url == ADDRESS_TYPE:
        made = MeshDecoder().decode(name, content)
        return (SERVICES if isinstance(made, Service) else WORKLOADS, "", name), made
    if type_url == AUTHORIZATION_TYPE:
        return (POLICIES, "", name), decode_policy(name, content)
    if type_url not in TYPE_URLS:
        raise BadResourceError(f"resources of type {type_url!r} are not read here")
    told, resource = decode(TYPE_URLS[type_url], content)
    return (HTTP[type_url], "", told), resource
