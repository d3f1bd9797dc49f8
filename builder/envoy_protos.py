# SPDX-License-Identifier: Apache-2.0
"""The descriptions of Envoy's messages that the ADS client reads: `python -m builder.envoy_protos`.

The package `xds-protos` is 20 MB of generated modules. What is decoded here takes a hundred of its thousand
files, and of these the names and types of fields alone: 40 KB, kept in the repository, from which the
protobuf runtime makes message classes in a few milliseconds. A test makes it again and compares.
"""

from __future__ import annotations

import sys
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from runtime.errors import KmeshError

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("runtime/source/envoy/messages.binpb.z")

# What is looked into. Of everything else the type's name is enough, to say what it is.
READ = (
    "envoy.config.cluster.v3.cluster",
    "envoy.config.endpoint.v3.endpoint",
    "envoy.config.listener.v3.listener",
    "envoy.config.route.v3.route",
    "envoy.extensions.filters.http.cors.v3.cors",
    "envoy.extensions.filters.http.fault.v3.fault",
    "envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit",
    "envoy.extensions.filters.http.rbac.v3.rbac",
    "envoy.extensions.filters.http.router.v3.router",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager",
    "envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy",
    "envoy.extensions.upstreams.http.v3.http_protocol_options",
    "udpa.type.v1.typed_struct",
    "xds.type.v3.typed_struct",
)
# Options for other tools: of documentation, validation and code generation.
_ANNOTATIONS = ("validate/", "udpa/annotations/", "xds/annotations/", "envoy/annotations/")


def describe_messages() -> bytes:
    """The descriptions of all that is read, dependencies first, compressed.

    Raises:
        KmeshError: xds-protos is not installed.
    """
    files: dict[str, Any] = {}
    try:
        for name in READ:
            _collect(import_module(f"{name}_pb2").DESCRIPTOR, files)
    except ImportError as error:
        hint = "install the development requirements: make setup"
        raise KmeshError(f"cannot describe Envoy's messages: {error}", hint=hint) from error
    described = FileDescriptorSet()
    for descriptor in files.values():
        file = described.file.add()
        descriptor.CopyToProto(file)
        _strip_file(file)
    return zlib.compress(described.SerializeToString(deterministic=True), 9)


def _collect(descriptor: Any, files: dict[str, Any]) -> None:
    if descriptor.name in files or descriptor.name.startswith(_ANNOTATIONS):
        return
    for dependency in descriptor.dependencies:
        _collect(dependency, files)
    files[descriptor.name] = descriptor


def _strip_file(file: FileDescriptorProto) -> None:
    kept = [name for name in file.dependency if not name.startswith(_ANNOTATIONS)]
    del file.dependency[:], file.public_dependency[:], file.weak_dependency[:]
    file.dependency.extend(kept)
    for field in ("options", "service", "extension", "source_code_info"):
        file.ClearField(field)
    for enum in file.enum_type:
        _strip(enum)
    for message in file.message_type:
        _strip_message(message)


def _strip_message(message: DescriptorProto) -> None:
    is_map = message.options.map_entry
    message.ClearField("options")
    if is_map:
        message.options.map_entry = True
    for part in (*message.field, *message.oneof_decl, *message.enum_type):
        _strip(part)
    for nested in message.nested_type:
        _strip_message(nested)


def _strip(part: Message) -> None:
    part.ClearField("options")
    for value in getattr(part, "value", ()):
        value.ClearField("options")


def main() -> int:
    """Write the file into this tree; status 1 and one line when that fails."""
    try:
        (ROOT / OUT).write_bytes(describe_messages())
    except KmeshError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
