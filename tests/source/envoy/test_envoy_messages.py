# SPDX-License-Identifier: Apache-2.0
"""The message types that are kept in the repository are those of Envoy, and all that was recorded is in them."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from builder.envoy_protos import OUT
from runtime.source.envoy.messages import message_class, type_name, unpack
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryResponse
from tests.source.envoy.wire import FILES, payloads

MAKE = (
    "import sys; from builder.envoy_protos import *; sys.stdout.buffer.write(describe_messages())"
)
# Types that are known by name alone: nothing in them matters to a request.
CLOSED = {
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
}


def test_the_descriptions_in_the_tree_are_those_of_envoy(checkout: Path):
    # In a process of its own: xds-protos fills the pool that other tests want empty.
    made = subprocess.run(
        [sys.executable, "-c", MAKE], cwd=checkout, capture_output=True, check=True
    )
    kept = (checkout / OUT).read_bytes()
    assert zlib.decompress(kept) == zlib.decompress(made.stdout), (
        "run python -m builder.envoy_protos"
    )
    assert len(kept) < 64_000


def test_the_types_are_in_a_pool_of_their_own():
    assert message_class("envoy.config.cluster.v3.Cluster")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("envoy.config.cluster.v3.Cluster")


def walk(message: Message, closed: set[str]) -> list[str]:
    """Fields anywhere in a message that its type does not have; types of `Any` that are not read."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Any":
        inner = unpack(message)
        if inner is None:
            closed.add(type_name(message))
            return []
        return walk(inner, closed)
    found = [f"{name}: {len(UnknownFieldSet(message))}"] if len(UnknownFieldSet(message)) else []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if isinstance(value, Message):
            found += walk(value, closed)
        elif field.message_type.GetOptions().map_entry:
            items: Any = value.values()
            found += [w for each in items if isinstance(each, Message) for w in walk(each, closed)]
        else:
            found += [w for each in value for w in walk(each, closed)]
    return found


@pytest.mark.parametrize("kind", FILES)
def test_recorded_resources_have_no_field_that_is_not_known(kind: str):
    closed: set[str] = set()
    for payload in payloads(kind):
        assert walk(message_class(kind).FromString(payload), closed) == []
    assert closed <= CLOSED


def test_a_response_holds_what_was_sent():
    response = DiscoveryResponse(version_info="1", nonce="n", type_url="t")
    assert DiscoveryResponse.FromString(response.SerializeToString()) == response
