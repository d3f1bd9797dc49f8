# SPDX-License-Identifier: Apache-2.0
"""How little is changed of what Istiod sent, and that nothing is lost with it."""

from __future__ import annotations

import pytest

from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES, read, unpack
from runtime.source.istiod.wire import BadResourceError
from runtime.waypoint.adapt import OBSERVERS, adapt
from tests.waypoint.bookstore import CDS, EDS, LDS, RDS, recorded

UNKNOWN = b"\xfa\x3e\x03new"  # field 1007, newer than any Envoy


def filters_of(payload: bytes) -> list[str]:
    chain = read(LISTENER, payload).filter_chains[0]
    return [each.name for each in unpack(chain.filters[0].typed_config).http_filters]


def test_istios_own_envoy_gets_the_very_bytes() -> None:
    there = recorded()
    for kind, message in ((CDS, CLUSTER), (EDS, ENDPOINTS), (RDS, ROUTES)):
        for payload in there[kind].values():
            assert adapt(message, payload, has=OBSERVERS) is payload
    outbound = {
        name: adapt(LISTENER, payload, has=OBSERVERS) for name, payload in there[LDS].items()
    }
    assert [name for name, each in outbound.items() if each is None] == [
        "virtualOutbound",
        "virtualInbound",
    ]
    assert all(each is there[LDS][name] for name, each in outbound.items() if each is not None)


def test_an_envoy_without_istios_observers_does_without_them() -> None:
    payload = recorded()[LDS]["0.0.0.0_9080"]
    made = adapt(LISTENER, payload, has=())
    assert made is not None
    gone = [name for name in filters_of(payload) if name not in filters_of(made)]
    assert gone == ["istio.metadata_exchange", "istio.alpn"]
    cluster = adapt(CLUSTER, recorded()[CDS]["outbound|80||web.default.svc.cluster.local"], has=())
    assert cluster is not None
    assert list(read(CLUSTER, cluster).filters) == []


def test_a_listener_opens_no_port_of_the_node_and_keeps_what_is_not_known() -> None:
    wire = read(LISTENER, recorded()[LDS]["0.0.0.0_80"])
    wire.ClearField("bind_to_port")
    made = adapt(LISTENER, wire.SerializeToString() + UNKNOWN, has=OBSERVERS)
    assert made is not None
    changed = read(LISTENER, made)
    assert changed.HasField("bind_to_port")
    assert changed.bind_to_port.value is False
    assert changed.SerializeToString().endswith(UNKNOWN)


def test_a_filter_that_does_something_is_never_left_out() -> None:
    wire = read(LISTENER, recorded()[LDS]["0.0.0.0_80"])
    manager = unpack(wire.filter_chains[0].filters[0].typed_config)
    manager.http_filters[0].typed_config.type_url = "type.googleapis.com/some.wasm.Policy"
    wire.filter_chains[0].filters[0].typed_config.value = manager.SerializeToString()
    made = adapt(LISTENER, wire.SerializeToString(), has=())
    assert made is not None
    assert "istio.metadata_exchange" in filters_of(
        made
    )  # its name; its configuration is the policy's


def test_what_cannot_be_read_is_an_error() -> None:
    with pytest.raises(BadResourceError):
        adapt(LISTENER, b"\xff\xff", has=())
