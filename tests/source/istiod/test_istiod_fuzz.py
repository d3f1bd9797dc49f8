# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes come: a resource of the model, or a reason. Nothing else, ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.mesh import Service, Workload
from runtime.model.policy import Policy
from runtime.source.istiod.changes import Changes
from runtime.source.istiod.decode_mesh import MeshDecoder
from runtime.source.istiod.decode_policy import decode_policy
from runtime.source.istiod.kinds import AddressKind, AuthorizationKind
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.proto.security_pb2 import Authorization
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.subscription import Subscription
from runtime.source.istiod.wire import BadResourceError

DATA = Path(__file__).parents[2] / "data/xds/bookstore"


def recorded(name: str) -> list[tuple[str, bytes]]:
    response = DeltaDiscoveryResponse.FromString((DATA / name).read_bytes())
    return [(each.name, each.resource.value) for each in response.resources]


ADDRESSES, POLICIES = recorded("delta-Address.pb"), recorded("delta-Authorization.pb")
EDITS = st.lists(
    st.tuples(st.integers(0, 1000), st.sampled_from("xid"), st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=6,
)


def edited(payload: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    """Overwrite, insert or delete a few bytes here and there."""
    data = bytearray(payload)
    for where, how, new in edits:
        at = where % (len(data) + 1)
        end = at if how == "i" else at + len(new)
        data[at:end] = b"" if how == "d" else new
    return bytes(data)


def fields_of(descriptor: Any, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Random values for all fields of a message, those of the wrong size and meaning too."""
    kinds = {
        descriptor.fields[0].TYPE_STRING: st.text(max_size=20),
        descriptor.fields[0].TYPE_BYTES: st.binary(max_size=17),
        descriptor.fields[0].TYPE_BOOL: st.booleans(),
        descriptor.fields[0].TYPE_UINT32: st.integers(0, 2**32 - 1),
        descriptor.fields[0].TYPE_ENUM: st.integers(-1, 9),
    }
    optional = {}
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.message_type is None:
            value = kinds[field.type]
        elif depth < 4 and field.message_type.fields and field.message_type.name != "Any":
            value = fields_of(field.message_type, depth + 1)
        else:
            value = st.just({})
        optional[field.name] = st.lists(value, max_size=3) if field.is_repeated else value
    return st.fixed_dictionaries({}, optional=optional)


def accepts_or_refuses(decode: Any, name: str, payload: bytes) -> None:
    reason, made = "", None
    try:
        made = decode(name, payload)
    except BadResourceError as error:
        reason = str(error)
    if made is None:
        assert reason
        assert "\n" not in reason
        return
    assert isinstance(made, Service | Workload | Policy)
    assert (made.uid if isinstance(made, Workload) else made.key) == name


@given(st.text(max_size=10), st.binary(max_size=200))
def test_arbitrary_bytes(name, payload):
    accepts_or_refuses(MeshDecoder().decode, name, payload)
    accepts_or_refuses(decode_policy, name, payload)


@given(st.sampled_from(ADDRESSES), EDITS)
def test_mutated_addresses(resource, edits):
    accepts_or_refuses(MeshDecoder().decode, resource[0], edited(resource[1], edits))


@given(st.sampled_from(POLICIES), EDITS)
def test_mutated_policies(resource, edits):
    accepts_or_refuses(decode_policy, resource[0], edited(resource[1], edits))


@given(fields_of(Address.DESCRIPTOR.fields_by_name["workload"].message_type))
def test_any_workload(fields):
    message = Address(workload=fields)
    accepts_or_refuses(MeshDecoder().decode, message.workload.uid, message.SerializeToString())


@given(fields_of(Address.DESCRIPTOR.fields_by_name["service"].message_type))
def test_any_service(fields):
    message = Address(service=fields)
    name = f"{message.service.namespace}/{message.service.hostname}"
    accepts_or_refuses(MeshDecoder().decode, name, message.SerializeToString())


@given(fields_of(Authorization.DESCRIPTOR))
def test_any_policy(fields):
    message = Authorization(**fields)
    accepts_or_refuses(
        decode_policy, f"{message.namespace}/{message.name}", message.SerializeToString()
    )


@pytest.mark.parametrize("kind", [AddressKind, AuthorizationKind])
@given(data=st.data())
def test_any_order_of_good_bad_and_removed_ends_where_the_last_good_says(kind, data):
    """Against a plain model of the protocol: last good state wins, removals remove."""
    good = ADDRESSES if kind is AddressKind else POLICIES
    expected: dict[str, Any] = {}
    subscription, seen = Subscription(kind()), Changes()
    steps = data.draw(
        st.lists(
            st.lists(st.tuples(st.sampled_from(good), st.sampled_from("gbr")), max_size=6),
            max_size=6,
        )
    )
    for number, step in enumerate(steps):
        response = DeltaDiscoveryResponse(type_url=subscription.kind.type_url)
        said = {name: (what, payload) for (name, payload), what in step}
        for name, (what, payload) in said.items():
            if what == "r":
                response.removed_resources.append(name)
                expected.pop(name, None)
                continue
            resource = response.resources.add(name=name, version=str(number))
            resource.resource.type_url = subscription.kind.type_url
            resource.resource.value = payload if what == "g" else b"\xff"
            if what == "g":
                expected[name] = payload
        seen.merge(_run(subscription.apply(response)).changes)
    held = {**seen.services, **seen.workloads, **seen.policies}
    assert {name for name, state in held.items() if state is not None} == expected.keys()
    assert subscription.versions.keys() == expected.keys()


def _run(coroutine: Any) -> Any:
    """Run what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")
