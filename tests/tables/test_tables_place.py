# SPDX-License-Identifier: Apache-2.0
"""Where this node is: told, or learned from its workloads; and tables that follow when it moves."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from runtime.model.mesh import (
    BalancingMode,
    LoadBalancing,
    Locality,
    NetworkAddress,
    Scope,
    Service,
    Waypoint,
    Workload,
)
from runtime.model.policy import Match, Policy, PolicyScope, StringKind, StringMatch
from runtime.source.update import Update
from runtime.tables.place import Place, Whereabouts
from runtime.tables.policies import TABLES, Contents, PolicyTables
from runtime.tables.services import ServiceTables
from tests.tables.tables_model import TCP, Maps, mapped, service, workload

EAST = Locality("eu", "eu-1", "rack-1")
VIP = "10.96.0.1"


def pod(uid: str, host: str, *, node: str, network: str = "net1", **extra: object) -> Workload:
    fields = {"cluster": "c1", "locality": EAST, "network": network} | extra
    return replace(workload(uid, host), node=node, **fields)  # type: ignore[arg-type]


def test_what_is_told_is_not_overruled() -> None:
    told = Place(node="n1", locality=Locality("us"), cluster="mine", network="")
    where = Whereabouts(told)
    assert not where.learn([pod("w", "10.244.0.1", node="n1")])
    assert where.place == told


def test_the_rest_is_learned_from_this_nodes_own_workloads() -> None:
    where = Whereabouts(Place(node="n1"))
    assert not where.learn([pod("w", "10.244.0.9", node="n2", network="net9")])
    assert where.place.network is None
    own = [pod("a", "10.244.0.1", node="n1"), pod("b", "10.244.0.2", node="n1")]
    odd = pod("c", "10.244.0.3", node="n1", network="net7", locality=Locality())
    assert where.learn([odd, *own])
    assert where.place == Place(node="n1", locality=EAST, cluster="c1", network="net1")
    assert str(where.place) == "node n1, cluster c1, network net1, locality eu/eu-1/rack-1"
    assert not where.learn(own)


def test_a_node_without_a_name_learns_nothing() -> None:
    where = Whereabouts(Place())
    assert not where.learn([pod("a", "10.244.0.1", node="")])


# The tables.


def in_network(one: Service, network: str) -> Service:
    return replace(one, addresses=(NetworkAddress(ip_address(VIP), network),))


def picture() -> Update:
    """One address in two networks; a service that insists on its cluster."""
    strict = LoadBalancing(mode=BalancingMode.STRICT, routing_preference=(Scope.CLUSTER,))
    near = service("near", "10.96.0.2", load_balancing=strict)
    near = replace(near, addresses=(NetworkAddress(ip_address("10.96.0.2"), "net1"),))
    serves = {**workload("x", serves=("a", "b", "near")).services}
    workloads = (
        replace(pod("here", "10.244.0.1", node="n1"), services=serves),
        replace(pod("far", "10.244.0.2", node="n3", cluster="c2"), services=serves),
        replace(pod("there", "10.244.0.3", node="n2", network="net2"), services=serves),
    )
    services = (in_network(service("a"), "net1"), in_network(service("b"), "net2"), near)
    return Update(services=services, workloads=workloads, complete=True)


HERE = Place(node="n1", locality=EAST, cluster="c1", network="net1")
places = st.builds(
    Place,
    node=st.just("n1"),
    locality=st.sampled_from([Locality(), EAST]),
    cluster=st.sampled_from(["", "c1", "c2"]),
    network=st.sampled_from([None, "", "net1", "net2"]),
)


def test_networks_and_clusters_are_told_apart() -> None:
    maps = Maps()
    maps.run(ServiceTables(place=HERE).apply(picture()))
    view = maps.view()
    assert {host for host, _, _ in view[mapped(VIP), 80, TCP]} == {
        mapped("10.244.0.1"),
        mapped("10.244.0.2"),
    }
    assert {host for host, _, _ in view[mapped("10.96.0.2"), 80, TCP]} == {mapped("10.244.0.1")}


@given(before=places, after=places)
def test_tables_that_move_are_those_that_were_there_from_the_start(
    before: Place, after: Place
) -> None:
    maps, straight = Maps(), Maps()
    tables = ServiceTables(place=before)
    maps.run(tables.apply(picture()))
    tables.relocate(after)
    maps.run(tables.apply(Update()))
    fresh = ServiceTables(place=after)
    straight.run(fresh.apply(picture()))
    maps.check_weights()
    assert maps.view() == straight.view()
    assert tables.problems == fresh.problems
    assert tables.apply(picture()) == []


def test_other_networks_are_told_with_their_gateways_and_no_longer_than_they_last() -> None:
    address = NetworkAddress(ip_address("192.0.2.1"), "net2")
    through = Waypoint(destination=address, port=15008)
    far = [pod(f"w{n}", f"10.244.5.{n}", node="n2", network="net2") for n in range(3)]
    tables = ServiceTables(place=HERE)
    tables.apply(Update(workloads=(replace(far[0], network_gateway=through), *far[1:])))
    (told,) = tables.problems
    assert told.resource == "network net2"
    assert "3 of its workloads" in told.reason
    assert "the gateway 192.0.2.1 port 15008" in told.reason
    tables.apply(Update(removed_workloads=("w0",)))
    assert "2 of its workloads" in tables.problems[0].reason
    assert "a gateway that is not known" in tables.problems[0].reason
    tables.relocate(replace(HERE, network="net2"))
    tables.apply(Update())
    assert tables.problems == ()


# Policies.

ONLY_CART = Policy(
    name="only", namespace="ns", scope=PolicyScope.NAMESPACE,
    groups=(((Match(principals=(StringMatch(StringKind.SUFFIX, "/sa/cart"),)),),),),
)  # fmt: skip


def policies_after(place: Place, *moves: Place) -> dict[str, dict[bytes, bytes]]:
    kernel: dict[str, dict[bytes, bytes]] = {name: {} for name in TABLES}
    tables = PolicyTables(place=place)
    workloads = (
        replace(pod("db", "10.244.0.1", node="n1"), service_account="db"),
        replace(pod("cart", "10.244.0.2", node="n2"), service_account="cart"),
        replace(pod("evil", "10.244.0.2", node="n9", network="net2"), service_account="evil"),
    )
    updates = [Update(workloads=workloads, policies=(ONLY_CART,), complete=True)]
    for update in [*updates, *(Update() for _ in moves)]:
        for op in tables.apply(update):
            if op.value is None:
                del kernel[op.table][op.key]
            else:
                kernel[op.table][op.key] = op.value
        if moves:
            tables.relocate(moves[0])
            moves = moves[1:]
    return kernel


def known(contents: Contents) -> dict[bytes, bytes]:
    return {**contents["identities"]}


def test_an_address_is_whose_it_is_in_this_nodes_network() -> None:
    apart = policies_after(HERE)
    together = policies_after(replace(HERE, network=None))
    assert known(apart) != known(together)  # contested where networks are not told apart
    moved = policies_after(replace(HERE, network=None), HERE)
    assert known(moved) == known(apart)
    assert moved["guards"].keys() == apart["guards"].keys()
