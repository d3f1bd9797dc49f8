# SPDX-License-Identifier: Apache-2.0
"""The wire's message types, made from their descriptions when the first of them is needed.

`python -m builder.envoy_protos` writes the descriptions. The pool is our own: see
`runtime.source.istiod.proto.pool`.
"""

from __future__ import annotations

import zlib
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from runtime.source.istiod.wire import BadResourceError, parse

_PREFIX = "type.googleapis.com/"
CLUSTER = "envoy.config.cluster.v3.Cluster"
ENDPOINTS = "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "envoy.config.listener.v3.Listener"
ROUTES = "envoy.config.route.v3.RouteConfiguration"


@cache
def _pool() -> DescriptorPool:
    packed = (files("runtime.source.envoy") / "messages.binpb.z").read_bytes()
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(zlib.decompress(packed)).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def message_class(name: str) -> Any:
    """The class of a message, by its full name.

    Raises:
        KeyError: it is not among those that are read.
    """
    return GetMessageClass(_pool().FindMessageTypeByName(name))


def type_url(name: str) -> str:
    """How a message's type is told on the wire."""
    return _PREFIX + name


def type_name(packed: Any) -> str:
    """The full name of the message within an `Any`; "" when there is none."""
    return str(packed.type_url).rpartition("/")[2]


def unpack(packed: Any) -> Any:
    """The message within an `Any`; None when its type is not among those that are read.

    Raises:
        BadResourceError: its bytes are not a message of the type that it says.
    """
    try:
        kind = message_class(type_name(packed))
    except KeyError:
        return None
    return parse(kind, packed.value)


def read(name: str, payload: bytes) -> Any:
    """Parse a message.

    Raises:
        BadResourceError: these bytes are not one.
    """
    return parse(message_class(name), payload)


__all__ = [
    "CLUSTER",
    "ENDPOINTS",
    "LISTENER",
    "ROUTES",
    "BadResourceError",
    "message_class",
    "read",
    "type_name",
    "type_url",
    "unpack",
]
