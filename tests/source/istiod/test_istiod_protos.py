# SPDX-License-Identifier: Apache-2.0
"""The generated modules are those of the .proto files, and the .proto files are what Istiod speaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from builder.protos import PROTO_DIR, compile_protos
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.proto.security_pb2 import Authorization
from runtime.source.istiod.proto.workload_pb2 import Address

RECORDED = {"delta-Address.pb": (Address, 19), "delta-Authorization.pb": (Authorization, 2)}


def unknown_fields(message: Message, where: str) -> list[str]:
    """Every field anywhere in a message that its type does not have."""
    unknown = UnknownFieldSet(message)
    found = [f"{where}#{unknown[index].field_number}" for index in range(len(unknown))]
    for field, value in message.ListFields():
        path = f"{where}.{field.name}"
        if field.type != field.TYPE_MESSAGE:
            continue
        assert field.message_type is not None
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type:
                for key in value:
                    found += unknown_fields(value[key], f"{path}[{key}]")
        elif isinstance(value, Message):
            found += unknown_fields(value, path)
        else:
            for each in value:
                found += unknown_fields(each, path)
    return found


def test_the_walk_finds_unknown_fields_at_any_depth():
    message = Address()
    message.workload.services["a/b"].ports.add().ParseFromString(b"\x78\x01")
    message.workload.waypoint.address.ParseFromString(b"\x78\x01")
    found = unknown_fields(message, "Address")
    assert found == [
        "Address.workload.waypoint.address#15",
        "Address.workload.services[a/b].ports#15",
    ]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_responses_decode_whole(checkout: Path, name: str):
    kind, count = RECORDED[name]
    raw = (checkout / "tests/data/xds/bookstore" / name).read_bytes()
    response = DeltaDiscoveryResponse.FromString(raw)
    assert unknown_fields(response, "response") == []
    assert response.nonce
    assert len(response.resources) == count
    for resource in response.resources:
        assert resource.resource.type_url.endswith(kind.DESCRIPTOR.full_name)
        message = kind.FromString(resource.resource.value)
        assert unknown_fields(message, resource.name) == []
        assert message.ListFields()


def test_the_modules_in_the_tree_are_generated_from_the_protos(checkout: Path, tmp_path: Path):
    made = compile_protos(tmp_path)
    assert {path.name for path in made} == {
        path.name for path in (checkout / PROTO_DIR).glob("*_pb2.py")
    }
    for path in made:
        kept = checkout / PROTO_DIR / path.name
        assert kept.read_text() == path.read_text(), f"{path.name}: run python -m builder.protos"


def test_nothing_is_registered_in_the_pool_that_other_libraries_share():
    pool = descriptor_pool.Default()
    for name in ("istio.workload.Address", "google.rpc.Status", "envoy.config.core.v3.Node"):
        with pytest.raises(KeyError):
            pool.FindMessageTypeByName(name)
