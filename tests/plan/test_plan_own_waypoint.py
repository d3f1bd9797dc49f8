# SPDX-License-Identifier: Apache-2.0
"""A service with a waypoint of its own: what that may refuse does not go past it; the rest of a port stays."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.control.http_tables import key_of
from runtime.control.routes import describe_routes, plan_of
from runtime.control.view import View
from runtime.model.mesh import (
    AppProtocol,
    NamespacedHostname,
    NetworkAddress,
    Service,
    ServicePort,
    Waypoint,
)
from runtime.model.policy import Policy, PolicyScope
from runtime.model.waypoint_policies import AtWaypoints
from runtime.plan.kernel_table import kernel_table
from runtime.plan.planned import Place
from runtime.source.update import Update
from tests.plan.test_plan_guards import SERVICE, VIP, policy, view

OTHER = ip_address("10.96.0.11")
AT = NetworkAddress(ip_address("10.96.0.99"))
NAMED = Waypoint(destination=NamespacedHostname("infra", "waypoint.infra.svc"), port=15008)
OF_SERVICE = policy(scope=PolicyScope.SERVICE, services=(SERVICE.key,))
OF_GATEWAY = policy(scope=PolicyScope.SERVICE, gateways=True)


def service(*waypoints: Waypoint, protocol: AppProtocol = AppProtocol.HTTP11) -> Service:
    port = ServicePort(service_port=80, target_port=8080, app_protocol=protocol)
    return replace(SERVICE, ports=(port,), waypoints=waypoints)


def world(
    of: Service, at: AtWaypoints, *others: Service, policies: tuple[Policy, ...] = ()
) -> View:
    """One listener for all addresses, as Istiod makes them."""
    made = view(*policies, address=None)
    made.take(Update(services=(of, *others), at_waypoints=at))
    return made


def places(of: View, address: Any = VIP) -> set[Place]:
    plan = plan_of(of, why_not="")
    assert plan is not None
    port = plan.port_of(address, 80)
    assert port is not None
    return {each.place for host in port.hosts for each in host.routes}


def in_namespace(one: Policy, namespace: str) -> Policy:
    return replace(one, namespace=namespace)


@pytest.mark.parametrize(
    ("waypoints", "at", "place"),
    [
        ((NAMED,), AtWaypoints(), Place.KERNEL),
        ((NAMED,), AtWaypoints(policies=(OF_SERVICE,)), Place.WAYPOINT),
        ((), AtWaypoints(policies=(OF_SERVICE,)), Place.KERNEL),
        ((NAMED,), AtWaypoints(policies=(replace(OF_SERVICE, services=("x/y",)),)), Place.KERNEL),
        ((NAMED,), AtWaypoints(unknown="forbidden"), Place.WAYPOINT),
        ((), AtWaypoints(unknown="forbidden"), Place.KERNEL),
        ((NAMED,), AtWaypoints(policies=(in_namespace(OF_GATEWAY, "infra"),)), Place.WAYPOINT),
        ((NAMED,), AtWaypoints(policies=(in_namespace(OF_GATEWAY, "istio-system"),)), Place.WAYPOINT),
        ((NAMED,), AtWaypoints(policies=(in_namespace(OF_GATEWAY, "ingress"),)), Place.KERNEL),
    ],
)  # fmt: skip
def test_what_a_waypoint_may_refuse_is_its_own(
    waypoints: tuple[Waypoint, ...], at: AtWaypoints, place: Place
) -> None:
    assert places(world(service(*waypoints), at)) == {place}


def test_a_waypoint_by_address_is_in_the_namespace_of_its_service() -> None:
    at = AtWaypoints(policies=(in_namespace(OF_GATEWAY, "infra"),))
    of = service(Waypoint(destination=AT, port=15008))
    there = replace(SERVICE, name="w", namespace="infra", hostname="w.infra.svc", addresses=(AT,))
    assert places(world(of, at, there)) == {Place.WAYPOINT}
    elsewhere = replace(there, namespace="bank")
    assert places(world(of, at, elsewhere)) == {Place.KERNEL}
    assert places(world(of, at)) == {Place.WAYPOINT}, "it is not known whose the address is"


def test_others_on_the_port_stay_in_the_kernel_and_the_reason_is_told() -> None:
    other = replace(
        service(), name="other", hostname="other.shop.svc", addresses=(NetworkAddress(OTHER),)
    )
    made = world(service(NAMED), AtWaypoints(policies=(OF_SERVICE,)), other)
    assert (places(made), places(made, OTHER)) == ({Place.WAYPOINT}, {Place.KERNEL})
    plan = plan_of(made, why_not="")
    assert plan is not None
    ours, theirs = plan.port_of(VIP, 80), plan.port_of(OTHER, 80)
    assert ours is not None
    assert theirs is not None
    assert key_of(ours) != key_of(theirs), "each has a table"
    assert kernel_table(ours).is_all_waypoint, "so the kernel leads connections there"
    (row,) = describe_routes(made, why_not="", service="shop/web")["routes"]
    assert row["place"] == "waypoint"
    assert row["why"] == ["service shop/web: its waypoint has authorization policy shop/p"]


def test_a_port_that_no_waypoint_gets_is_served_as_before() -> None:
    """What does not say that clients speak first goes past waypoints on each path."""
    of = service(NAMED, protocol=AppProtocol.UNKNOWN)
    assert places(world(of, AtWaypoints(unknown="forbidden"))) == {Place.KERNEL}


def test_a_gateways_policy_from_files_counts_too() -> None:
    made = world(service(NAMED), AtWaypoints(), policies=(in_namespace(OF_GATEWAY, "infra"),))
    assert places(made) == {Place.WAYPOINT}
    trial = replace(in_namespace(OF_GATEWAY, "infra"), dry_run=True)
    assert places(world(service(NAMED), AtWaypoints(), policies=(trial,))) == {Place.KERNEL}
