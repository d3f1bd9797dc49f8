# SPDX-License-Identifier: Apache-2.0
"""What `explain` says, with the tables that an update makes, in dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, cast

import pytest

from runtime.control.explain import explain
from runtime.control.known import Known
from runtime.control.question import parse_question
from runtime.control.view import View
from runtime.kernel.reader import PinnedTables
from runtime.model.mesh import (
    AppProtocol,
    BalancingMode,
    LoadBalancing,
    Locality,
    NamespacedHostname,
    NetworkAddress,
    Scope,
    Service,
    ServicePort,
    Waypoint,
    Workload,
)
from runtime.model.policy import Action, Policy, PolicyScope
from runtime.source.update import Update
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables

HERE = Place(node="n1", locality=Locality("r", "a"))
HTTP = ServicePort(service_port=80, target_port=8080, app_protocol=AppProtocol.HTTP11, name="http")
MYSQL = ServicePort(service_port=3306, app_protocol=AppProtocol.TCP)
WEB = Service(
    name="web",
    namespace="shop",
    hostname="web.shop",
    addresses=(NetworkAddress(ip_address("10.96.0.10")),),
    ports=(HTTP, MYSQL),
)


def pod(name: str, number: int, **extra: Any) -> Workload:
    fields: dict[str, Any] = {
        "addresses": (ip_address(f"10.244.0.{number}"),),
        "services": {WEB.key: WEB.ports},
        "node": "n1",
        "locality": Locality("r", "a"),
    }
    return Workload(uid=name, name=name, namespace="shop", **{**fields, **extra})


class Dictionaries:
    """Tables that an update made, where a kernel's would be."""

    def __init__(self, update: Update, place: Place) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {}
        for op in ServiceTables(place=place).apply(update):
            assert op.value is not None
            self._tables.setdefault(op.table, {})[op.key] = op.value

    def lookup(self, table: str, key: bytes) -> bytes | None:
        return self._tables.get(table, {}).get(key)

    def items(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._tables.get(table, {}).items())

    def governed(self) -> list[str]:
        return sorted({"/sys/fs/cgroup/a": ["kmesh_connect4"]})


def ask(
    text: str,
    *services: Service,
    workloads: tuple[Workload, ...] = (),
    policies: tuple[Policy, ...] = (),
    place: Place = HERE,
    acceleration: Any = None,
    said: Update | None = None,
) -> Any:
    """Explain an address, when the kernel has one update; and the daemon another, where given."""
    update = Update(
        services=services or (WEB,), workloads=workloads, policies=policies, complete=True
    )
    view = View(source="test", synced=1.0)
    view.take(said or update)
    tables = cast("PinnedTables", Dictionaries(update, place))
    known = Known(view, place=place, acceleration=acceleration)
    return explain(parse_question(text), tables, known=known)


def only(answer: Any) -> Any:
    (destination,) = answer["destinations"]
    return destination


def reasons(destination: Any) -> dict[str, str]:
    return {one["name"]: one["reason"] for one in destination["unused"]}


def test_shares_are_exact_by_weight() -> None:
    pods = (pod("a", 1, capacity=90), pod("b", 2, capacity=10), pod("c", 3, capacity=0))
    found = only(ask("10.96.0.10:80", workloads=pods))
    shares = [(one["address"], one["weight"], one["share_percent"]) for one in found["endpoints"]]
    assert shares == [("10.244.0.1", 90, 90.0), ("10.244.0.2", 10, 10.0)]
    assert reasons(found) == {"c": "its weight is 0"}


def test_a_thousand_endpoints_add_up() -> None:
    pods = tuple(
        pod(f"p{n}", 0, addresses=(ip_address(0x0AF40000 + n),), capacity=1 + n % 7)
        for n in range(1, 1001)
    )
    found = only(ask("10.96.0.10:80", workloads=pods))
    assert len(found["endpoints"]) == 1000
    assert sum(one["share_percent"] for one in found["endpoints"]) == pytest.approx(100, abs=0.1)
    assert all(one["workload"] for one in found["endpoints"])


def test_locality_is_given_as_the_reason() -> None:
    near, far = pod("near", 1), pod("far", 2, node="n2", locality=Locality("r", "b"))
    prefer = LoadBalancing(
        mode=BalancingMode.FAILOVER, routing_preference=(Scope.REGION, Scope.ZONE)
    )
    found = only(ask("10.96.0.10:80", replace(WEB, load_balancing=prefer), workloads=(near, far)))
    assert [one["workload"]["name"] for one in found["endpoints"]] == ["near"]
    assert reasons(found) == {
        "far": "farther than those in use: shares region with this node (r/a, node n1), not its zone"
    }
    insist = replace(prefer, mode=BalancingMode.STRICT)
    found = only(ask("10.96.0.10:80", replace(WEB, load_balancing=insist), workloads=(far,)))
    assert found["verdict"] == "refused"
    assert reasons(found)["far"] == (
        "the service insists on the same region, zone: this one is at r/b, node n2, "
        "this node at r/a, node n1"
    )


def test_a_waypoint_and_the_port_that_goes_past_it() -> None:
    proxy = Service(
        name="proxy",
        namespace="shop",
        hostname="proxy.shop",
        addresses=(NetworkAddress(ip_address("10.96.0.99")),),
        ports=(ServicePort(service_port=15008),),
    )
    waypoint = Waypoint(destination=NamespacedHostname("shop", "proxy.shop"), port=15008)
    web = replace(WEB, waypoints=(waypoint,))
    envoy = pod("envoy", 9, services={proxy.key: proxy.ports})
    on = {"on": True, "reason": ""}
    pods = (pod("a", 1), envoy)
    found = only(ask("10.96.0.10:80", web, proxy, workloads=pods, acceleration=on))
    assert (found["verdict"], found["waypoint"]) == ("waypoint", "shop/proxy.shop:15008")
    (endpoint,) = found["endpoints"]
    assert (endpoint["address"], endpoint["port"]) == ("10.244.0.9", 15008)
    assert endpoint["workload"]["name"] == "envoy"
    assert found["acceleration"]["on"] is False
    past = only(ask("10.96.0.10:3306", web, proxy, workloads=pods, acceleration=on))
    assert past["verdict"] == "balanced"
    assert past["acceleration"]["on"] is True
    (note,) = past["notes"]
    assert note.startswith("goes past the service's waypoint shop/proxy.shop:15008")
    gone = only(ask("10.96.0.10:80", web, proxy, workloads=(pod("a", 1),)))
    assert gone["meaning"] == "connections are refused at once: the waypoint has no instance"


def test_policies_are_named_at_the_endpoints_that_they_guard() -> None:
    wide = Policy(name="all", namespace="root", scope=PolicyScope.GLOBAL, action=Action.DENY)
    one = Policy(name="one", namespace="shop", dry_run=True)
    pods = (pod("a", 1, authorization_policies=("shop/one",)), pod("b", 2))
    found = only(ask("10.96.0.10:80", workloads=pods, policies=(wide, one)))
    named = {
        each["workload"]["name"]: [policy["key"] for policy in each["workload"]["policies"]]
        for each in found["endpoints"]
    }
    assert named == {"a": ["root/all", "shop/one"], "b": ["root/all"]}
    assert found["endpoints"][0]["workload"]["policies"][1] == {
        "key": "shop/one",
        "action": "ALLOW",
        "dry_run": True,
    }


def test_of_two_claimants_the_one_that_has_it_is_named() -> None:
    rival = replace(WEB, name="rival", hostname="rival.shop", ports=(HTTP,))
    found = only(ask("10.96.0.10:80", WEB, rival, workloads=(pod("a", 1),)))
    assert found["service"]["key"] == rival.key
    assert found["verdict"] == "refused"
    assert found["notes"] == [f"{WEB.key} claims 10.96.0.10:80/TCP too, and does not get it"]


def test_a_kernel_that_lags_behind_shows() -> None:
    nothing = Update(complete=True)
    found = only(ask("10.96.0.10:80", workloads=(pod("a", 1),), said=nothing))
    assert [one["address"] for one in found["endpoints"]] == ["10.244.0.1"]
    assert (found["service"], found["endpoints"][0]["workload"]) == (None, None)
    assert found["notes"] == [
        "test knows no service here: the kernel still has what it said before"
    ]
