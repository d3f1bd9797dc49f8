# SPDX-License-Identifier: Apache-2.0
"""A file of Kubernetes YAML (or JSON) to manifests, one document at a time.

A bad document costs nothing but itself: the others of its file are still read, and the reason
names the document, the object and the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from runtime.source.fields import Field, FieldError
from runtime.source.kubernetes_join import Identity
from runtime.source.kubernetes_pod import parse_pod
from runtime.source.kubernetes_service import parse_service
from runtime.source.kubernetes_slice import parse_slice
from runtime.source.yaml_document import load_document


def parse_http_route(document: Field, *, name: str, namespace: str) -> Any:
    """Who has no HTTPRoute does not wait for what it takes to read one."""
    from runtime.source import gateway_route

    return gateway_route.parse_http_route(document, name=name, namespace=namespace)


def parse_authorization_policy(document: Field, *, name: str, namespace: str) -> Any:
    """The same for policies."""
    from runtime.source import authorization_policy

    return authorization_policy.parse_authorization_policy(document, name=name, namespace=namespace)


def in_doubt(
    kind: str, document: Field, error: FieldError, *, name: str, namespace: str
) -> tuple[Any, bool]:
    """What stands for an object that cannot be accepted (None: nothing), and whether also before an earlier version."""
    if kind != "AuthorizationPolicy":
        return None, False
    from runtime.source import authorization_policy

    return authorization_policy.in_doubt(document, error, name=name, namespace=namespace)


_PARSERS: dict[str, Callable[..., Any]] = {
    "Service": parse_service,
    "EndpointSlice": parse_slice,
    "HTTPRoute": parse_http_route,
    "AuthorizationPolicy": parse_authorization_policy,
    "Pod": parse_pod,
}
_VERSIONS = {
    "Service": ("v1",),
    "EndpointSlice": ("discovery.k8s.io/v1",),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"),
    "AuthorizationPolicy": ("security.istio.io/v1", "security.istio.io/v1beta1"),
    "Pod": ("v1",),
}
_IGNORED = frozenset({"Namespace"})
# "---" at the start of a line is a document's end wherever it stands (YAML 1.2, 9.1.2).
_MARKER = re.compile(r"^---(?=\s|$)", re.MULTILINE)


@dataclass(slots=True)
class Parsed:
    """What a file says.

    Attributes:
        manifests: the objects that can be accepted.
        rejected: resource (file, document, object) → reason.
        bad: objects whose document is there, but cannot be accepted.
        instead: of these, what stands for them where no earlier version is known.
        unknown: kinds that nothing here reads.
        payloads: of objects that are recorded resources of an Envoy's, their very bytes.
        whole: every document could be told apart; where not, an object that seems to be missing
            may be hidden in one that cannot be read.
    """

    manifests: dict[Identity, Any] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    bad: set[Identity] = field(default_factory=set)
    instead: dict[Identity, Any] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    payloads: dict[Identity, bytes] = field(default_factory=dict)
    whole: bool = True

    def refuse(self, where: str, reason: str, identity: Identity | None = None) -> None:
        if identity is None:
            self.rejected[where] = reason
            self.whole = False
        else:
            kind, namespace, name = identity
            self.rejected[f"{where} ({kind} {namespace}/{name})"] = reason
            self.bad.add(identity)


def parse_text(text: str, *, file: str) -> Parsed:
    """Read all documents of a file.

    Args:
        text: what the file holds.
        file: its name, for the reasons.
    """
    parsed = Parsed()
    for number, (line, document) in enumerate(_documents(text), start=1):
        where = f"{file} document {number}"
        try:
            _read(load_document(document), where=where, parsed=parsed)
        except yaml.YAMLError as error:
            parsed.refuse(where, f"not YAML: {_reason(error, line=line)}")
        except Exception as error:  # noqa: BLE001 - no document may end the daemon
            parsed.refuse(where, f"cannot be read ({type(error).__name__}: {error})")
    return parsed


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """The documents that hold anything, each with the number of lines before it."""
    start = line = 0
    ends = [match.start() for match in _MARKER.finditer(text)]
    for end in [*ends, len(text)]:
        body = text[start:end]
        if _holds_anything(body):
            yield line, body
        line += body.count("\n")
        start = end


def _holds_anything(body: str) -> bool:
    lines = (line.strip() for line in body.removeprefix("---").splitlines())
    return any(line and not line.startswith("#") for line in lines)


def _reason(error: yaml.YAMLError, *, line: int) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {line + mark.line + 1}, column {mark.column + 1})" if mark else problem


def _read(value: Any, *, where: str, parsed: Parsed) -> None:
    if value is None:
        return
    document = Field(value)
    try:
        kind = document.get("kind").name()
        if kind.endswith("List") and document.get("items").given:
            for number, item in enumerate(document.get("items").items(), start=1):
                _read(item.value, where=f"{where} item {number}", parsed=parsed)
        else:
            _read_object(document, kind=kind, where=where, parsed=parsed)
    except FieldError as error:
        parsed.refuse(where, str(error))


def _read_object(document: Field, *, kind: str, where: str, parsed: Parsed) -> None:
    if kind not in _PARSERS:
        if kind not in _IGNORED:
            parsed.unknown.add(kind)
        return
    metadata = document.get("metadata")
    identity = (
        kind,
        metadata.get("namespace").string(default="default"),
        metadata.get("name").name(),
    )
    if identity in parsed.manifests or identity in parsed.bad:
        parsed.refuse(where, "is in this file already; this one is not used", identity)
        return
    name, namespace = identity[2], identity[1]
    try:
        document.get("apiVersion").choice(*_VERSIONS[kind])
        manifest = _PARSERS[kind](document, name=name, namespace=namespace)
    except FieldError as error:
        parsed.refuse(where, str(error), identity)
        instead, counts = in_doubt(kind, document, error, name=name, namespace=namespace)
        if instead is not None:
            (parsed.manifests if counts else parsed.instead)[identity] = instead
    else:
        parsed.manifests[identity] = manifest
