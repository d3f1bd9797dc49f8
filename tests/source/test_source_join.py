# SPDX-License-Identifier: Apache-2.0
"""Services and slices joined: who serves what, and that a change costs what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from runtime.model.mesh import NetworkAddress, Protocol, Service, ServicePort
from runtime.source.kubernetes_join import Changes, Identity, Join, Manifest
from runtime.source.kubernetes_slice import EndpointSlice, SliceEndpoint, SlicePort

WEB = "shop/web.shop.svc.cluster.local"


def service(name: str = "web", *ports: ServicePort) -> Service:
    return Service(
        name=name,
        namespace="shop",
        hostname=f"{name}.shop.svc.cluster.local",
        addresses=(NetworkAddress(ip_address("10.96.0.10")),),
        ports=ports or (ServicePort(service_port=80, target_port=8080, name="http"),),
    )


def endpoint(address: str, **more: Any) -> SliceEndpoint:
    return SliceEndpoint(addresses=(ip_address(address),), **more)


def part(
    name: str, *endpoints: SliceEndpoint, of: str = "web", port: int | None = 8080
) -> EndpointSlice:
    return EndpointSlice(
        name=name,
        namespace="shop",
        service=f"shop/{of}.shop.svc.cluster.local",
        ports=(SlicePort(name="http", protocol=Protocol.TCP, number=port),),
        endpoints=endpoints,
    )


def put(
    join: Join, *manifests: Service | EndpointSlice, gone: Sequence[Service | EndpointSlice] = ()
) -> Changes:
    objects: dict[Identity, Manifest | None] = {
        (type(each).__name__, each.namespace, each.name): each for each in manifests
    } | {(type(each).__name__, each.namespace, each.name): None for each in gone}
    return join.apply(objects)


def serving(join: Join, key: str = WEB) -> dict[str, list[int]]:
    """Address → target ports, of the healthy workloads of a service."""
    return {
        str(address): [port.target_port for port in workload.services[key]]
        for workload in join.workloads.values()
        if workload.healthy and key in workload.services
        for address in workload.addresses
    }


def test_all_slices_of_a_service_count() -> None:
    join = Join()
    put(
        join, service(), part("a", endpoint("10.0.0.1")), part("b", endpoint("10.0.0.2"), port=9090)
    )
    assert serving(join) == {"10.0.0.1": [8080], "10.0.0.2": [9090]}


def test_slices_may_come_before_their_service() -> None:
    join = Join()
    changes = put(join, part("a", endpoint("10.0.0.1")))
    assert changes.workloads == {}
    put(join, service())
    assert serving(join) == {"10.0.0.1": [8080]}


def test_a_slice_without_a_number_takes_the_services_target() -> None:
    join = Join()
    put(join, service(), part("a", endpoint("10.0.0.1"), port=None))
    assert serving(join) == {"10.0.0.1": [8080]}


def test_a_port_that_the_slice_does_not_name_is_not_served() -> None:
    join = Join()
    other = ServicePort(service_port=81, target_port=81, name="admin")
    web = service("web", ServicePort(service_port=80, target_port=0, name="http"), other)
    put(join, web, part("a", endpoint("10.0.0.1")))
    (workload,) = join.workloads.values()
    assert [port.service_port for port in workload.services[WEB]] == [80]


def test_endpoints_that_are_not_ready_are_known_and_unhealthy() -> None:
    join = Join()
    put(join, service(), part("a", endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False)))
    assert serving(join) == {"10.0.0.1": [8080]}
    assert {str(w.addresses[0]): w.healthy for w in join.workloads.values()}["10.0.0.2"] is False


def test_draining_endpoints_serve_only_where_nothing_is_ready() -> None:
    join = Join()
    draining = endpoint("10.0.0.2", ready=False, draining=True)
    put(join, service(), part("a", endpoint("10.0.0.1"), draining))
    assert serving(join) == {"10.0.0.1": [8080]}
    put(join, part("a", endpoint("10.0.0.1", ready=False), draining))
    assert serving(join) == {"10.0.0.2": [8080]}


def test_a_pod_is_one_workload_in_all_its_slices_and_services() -> None:
    join = Join()
    put(
        join,
        service(),
        service("api"),
        part("v4", endpoint("10.0.0.1", pod="p")),
        part("v6", endpoint("fd00::1", pod="p")),
        part("api-1", endpoint("10.0.0.1", pod="p"), of="api"),
    )
    (workload,) = join.workloads.values()
    assert workload.uid == "Kubernetes//Pod/shop/p"
    assert [str(address) for address in workload.addresses] == ["10.0.0.1", "fd00::1"]
    assert sorted(workload.services) == ["shop/api.shop.svc.cluster.local", WEB]


def test_a_pod_unready_for_one_service_still_serves_the_other() -> None:
    join = Join()
    put(
        join,
        service(),
        service("api"),
        part("a", endpoint("10.0.0.1", pod="p", ready=False)),
        part("b", endpoint("10.0.0.1", pod="p"), of="api"),
    )
    (workload,) = join.workloads.values()
    assert workload.healthy
    assert list(workload.services) == ["shop/api.shop.svc.cluster.local"]


def test_one_address_with_two_ports_is_two_endpoints() -> None:
    join = Join()
    put(
        join,
        service(),
        part("a", endpoint("127.0.0.1"), port=1),
        part("b", endpoint("127.0.0.1"), port=2),
    )
    ports = [w.services[WEB][0].target_port for w in join.workloads.values()]
    assert sorted(ports) == [1, 2]


def test_an_endpoint_that_moves_between_slices_counts_once() -> None:
    join = Join()
    put(join, service(), part("a", endpoint("10.0.0.1")), part("b", endpoint("10.0.0.1")))
    assert len(join.workloads) == 1
    put(join, part("b", endpoint("10.0.0.1")), gone=[part("a")])
    assert serving(join) == {"10.0.0.1": [8080]}


def test_a_removed_service_takes_its_endpoints_along() -> None:
    join = Join()
    put(join, service(), part("a", endpoint("10.0.0.1")))
    changes = put(join, gone=[service()])
    assert changes.services == {WEB: None}
    assert list(changes.workloads.values()) == [None]
    assert join.workloads == {}


def test_a_slice_that_moves_to_another_service_leaves_the_first() -> None:
    join = Join()
    put(join, service(), service("api"), part("a", endpoint("10.0.0.1")))
    put(join, part("a", endpoint("10.0.0.1"), of="api"))
    assert serving(join) == {}
    assert serving(join, "shop/api.shop.svc.cluster.local") == {"10.0.0.1": [8080]}


def test_only_what_changed_is_told() -> None:
    join = Join()
    many = [endpoint(f"10.0.{n // 250}.{n % 250 + 1}") for n in range(1000)]
    put(
        join, service(), service("api"), part("a", *many), part("b", endpoint("10.1.0.1"), of="api")
    )
    changes = put(join, part("a", replace(many[0], ready=False), *many[1:]))
    assert changes.services == {}
    assert [str(w.addresses[0]) for w in changes.workloads.values() if w] == ["10.0.0.1"]
    assert put(join, service()).services == {}
