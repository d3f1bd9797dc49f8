# SPDX-License-Identifier: Apache-2.0
"""Wire to model: the recorded mesh, every field that is used, and what is refused."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from runtime.model.mesh import (
    AppProtocol,
    BalancingMode,
    HealthPolicy,
    Locality,
    NamespacedHostname,
    NetworkAddress,
    NetworkMode,
    Protocol,
    Scope,
    Service,
    Workload,
)
from runtime.model.policy import (
    Action,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from runtime.source.istiod.decode_mesh import MeshDecoder
from runtime.source.istiod.decode_policy import decode_policy
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.proto.security_pb2 import Authorization, Match
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.wire import BadResourceError
from tests.source.istiod.mesh_messages import policy, service, service_name, uid, workload


def decode(message, *, name: str | None = None):
    """Decode an Address under its own name, or another."""
    if name is None:
        wire = message.service
        own = f"{wire.namespace}/{wire.hostname}"
        name = message.workload.uid if message.HasField("workload") else own
    return MeshDecoder().decode(name, message.SerializeToString())


def refusal(message, **kwargs) -> str:
    with pytest.raises(BadResourceError) as caught:
        decode(message, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Service | Workload]:
    raw = Path("tests/data/xds/bookstore/delta-Address.pb").read_bytes()
    decoder = MeshDecoder()
    resources = DeltaDiscoveryResponse.FromString(raw).resources
    return {each.name: decoder.decode(each.name, each.resource.value) for each in resources}


@pytest.fixture(scope="module")
def recorded_policies():
    raw = Path("tests/data/xds/bookstore/delta-Authorization.pb").read_bytes()
    resources = DeltaDiscoveryResponse.FromString(raw).resources
    return {each.name: decode_policy(each.name, each.resource.value) for each in resources}


def test_recorded_services(recorded):
    services = {name: each for name, each in recorded.items() if isinstance(each, Service)}
    assert {each.key for each in services.values()} == set(services)
    names = {each.name for each in services.values()}
    assert names == {"frontend", "reviews", "ratings", "orders-db", "partner", "kubernetes", "web"}
    ratings = services["bookstore/ratings.bookstore.svc.cluster.local"]
    assert [(p.service_port, p.target_port, p.app_protocol) for p in ratings.ports] == [
        (9080, 8080, AppProtocol.HTTP11),
        (9090, 9090, AppProtocol.GRPC),
    ]
    assert ratings.addresses == (NetworkAddress(ip_address("10.96.159.132")),)
    assert ratings.ip_families == "IPV4_ONLY"
    assert ratings.canonical
    headless = services["bookstore/orders-db.bookstore.svc.cluster.local"]
    assert headless.addresses == ()
    assert headless.ports[0].app_protocol is AppProtocol.TCP
    external = services["bookstore/partner.example.com"]
    assert external.addresses == (NetworkAddress(ip_address("240.240.0.7")),)
    assert external.ip_families == "AUTOMATIC"


def test_recorded_workloads(recorded):
    workloads = {name: each for name, each in recorded.items() if isinstance(each, Workload)}
    assert len(workloads) == 12
    reviews = workloads["Kubernetes//Pod/bookstore/reviews-v2"]
    assert reviews.addresses == (ip_address("10.244.0.9"),)
    assert (reviews.name, reviews.namespace, reviews.node) == ("reviews-v2", "bookstore", "node1")
    assert (reviews.service_account, reviews.trust_domain) == ("reviews", "cluster.local")
    assert (reviews.canonical_name, reviews.canonical_revision) == ("reviews", "v2")
    assert (reviews.workload_type, reviews.workload_name) == ("POD", "reviews-v2")
    assert reviews.cluster == "Kubernetes"
    assert reviews.authorization_policies == ("bookstore/reviews-l7",)
    assert reviews.healthy
    ports = reviews.services["bookstore/reviews.bookstore.svc.cluster.local"]
    assert {(p.service_port, p.target_port) for p in ports} == {(9080, 8080)}
    partner = workloads["Kubernetes/networking.istio.io/ServiceEntry/bookstore/partner/203.0.113.7"]
    assert partner.addresses == (ip_address("203.0.113.7"),)
    assert partner.service_account == ""
    served = {key for each in workloads.values() for key in each.services}
    services = {name for name, each in recorded.items() if isinstance(each, Service)}
    assert served == services


def test_recorded_policies(recorded_policies):
    orders = recorded_policies["bookstore/orders-l4"]
    assert (orders.action, orders.scope) == (Action.ALLOW, PolicyScope.WORKLOAD_SELECTOR)
    ((ports,), (source,)) = orders.groups[0]
    assert ports.destination_ports == (8080,)
    assert source.namespaces == (StringMatch(StringKind.EXACT, "bookstore"),)
    assert source.not_source_ips == (ip_network("10.244.0.64/26"),)
    assert not orders.needs_http
    reviews = recorded_policies["bookstore/reviews-l7"]
    assert reviews.action is Action.DENY
    ((http,), (principal,)) = reviews.groups[0]
    assert http.empty
    exact = StringMatch(StringKind.EXACT, "cluster.local/ns/bookstore/sa/frontend")
    assert principal.not_principals == (exact,)
    assert reviews.needs_http


def test_every_field_of_a_workload_that_a_node_uses():
    message = workload("w", "10.244.0.1", "fd00::1", serves=("a", "b"), network="east")
    wire = message.workload
    wire.waypoint.address.address = ip_address("10.96.3.3").packed
    wire.waypoint.address.network = "east"
    wire.waypoint.hbone_mtls_port = 15008
    wire.locality.region, wire.locality.zone, wire.locality.subzone = "r", "z", "s"
    wire.status, wire.network_mode, wire.workload_type = 1, 1, 3
    wire.capacity.value = 7
    wire.trust_domain, wire.service_account = "td", "sa"
    wire.authorization_policies.extend(["shop/p", "shop/q"])
    made = decode(message)
    assert made.addresses == (ip_address("10.244.0.1"), ip_address("fd00::1"))
    assert made.waypoint is not None
    assert made.waypoint.destination == NetworkAddress(ip_address("10.96.3.3"), "east")
    assert made.waypoint.port == 15008
    assert made.locality == Locality("r", "z", "s")
    assert not made.healthy
    assert made.network_mode is NetworkMode.HOST_NETWORK
    assert made.workload_type == "JOB"
    assert made.capacity == 7
    assert made.trust_domain == "td"
    assert made.authorization_policies == ("shop/p", "shop/q")
    assert set(made.services) == {service_name("a"), service_name("b")}


def test_tunnels_and_gateways():
    message = workload("w", "10.244.0.1")
    assert (decode(message).proxy_port, decode(message).network_gateway) == (0, None)
    wire = message.workload
    wire.application_tunnel.port = 15088
    assert decode(message).proxy_port == 0  # a tunnel of another kind
    wire.application_tunnel.protocol = 1
    assert decode(message).proxy_port == 15088
    wire.network_gateway.hostname.namespace = "istio-system"
    assert decode(message).network_gateway is None  # it makes no sense, and costs nothing
    wire.network_gateway.hostname.hostname = "eastwest"
    wire.network_gateway.hbone_mtls_port = 15008
    gateway = decode(message).network_gateway
    assert gateway is not None
    assert (str(gateway.destination), gateway.port) == ("istio-system/eastwest", 15008)
    wire.application_tunnel.port = 65536
    assert "application tunnel" in refusal(message)


def test_capacity_zero_is_said_and_unset_is_one():
    message = workload("w", "10.244.0.1")
    assert decode(message).capacity == 1
    message.workload.capacity.value = 0
    assert decode(message).capacity == 0


def test_a_workload_with_a_hostname_has_no_addresses_yet():
    made = decode(workload("w", hostname="db.example.com"))
    assert made.hostname == "db.example.com"
    assert made.addresses == ()


def test_an_ipv4_mapped_address_is_the_ipv4_address():
    assert decode(workload("w", "::ffff:10.1.2.3")).addresses == (ip_address("10.1.2.3"),)


def test_every_field_of_a_service_that_a_node_uses():
    message = service("s", "10.96.0.1", "fd00:10:96::1")
    wire = message.service
    wire.addresses.add(address=ip_address("10.97.0.1").packed, network="west", length=32)
    balancing = wire.load_balancing
    balancing.routing_preference.extend([6, 1, 2, 3, 4, 5, 0, 77])
    balancing.mode, balancing.health_policy = 2, 1
    wire.subject_alt_names.append("spiffe://x")
    wire.ip_families, wire.visibility = 3, 1
    wire.waypoint.hostname.namespace, wire.waypoint.hostname.hostname = "shop", "waypoint.shop"
    wire.waypoint.hbone_mtls_port = 15008
    made = decode(message)
    assert [str(each) for each in made.addresses] == [
        "/10.96.0.1",
        "/fd00:10:96::1",
        "west/10.97.0.1",
    ]
    assert made.load_balancing.mode is BalancingMode.FAILOVER
    assert made.load_balancing.health_policy is HealthPolicy.ALLOW_ALL
    assert made.load_balancing.routing_preference == (
        Scope.NETWORK,
        Scope.REGION,
        Scope.ZONE,
        Scope.SUBZONE,
        Scope.NODE,
        Scope.CLUSTER,
    )
    assert made.subject_alt_names == ("spiffe://x",)
    assert (made.ip_families, made.visibility) == ("DUAL", "NAMESPACE")
    (waypoint,) = made.waypoints
    assert waypoint.destination == NamespacedHostname("shop", "waypoint.shop")
    assert (waypoint.port, waypoint.weight) == (15008, 1)


@pytest.mark.parametrize("mode", list(BalancingMode))
def test_balancing_modes_have_the_protocols_numbers(mode):
    message = service("s", "10.96.0.1")
    number = Address.DESCRIPTOR.file.message_types_by_name["LoadBalancing"]
    wanted = "UNSPECIFIED_MODE" if mode is BalancingMode.UNSPECIFIED else mode.value
    message.service.load_balancing.mode = number.enum_values_by_name[wanted].number
    assert decode(message).load_balancing.mode is mode


def test_weighted_waypoints_replace_the_single_one():
    message = service("s", "10.96.0.1")
    message.service.waypoint.hbone_mtls_port = 1
    for weight, host in ((90, "old"), (0, "new")):
        each = message.service.weighted_waypoints.add(weight=weight)
        each.destination.hostname.hostname = host
        each.destination.hbone_mtls_port = 15008
    made = decode(message).waypoints
    assert [(w.destination.hostname, w.weight) for w in made] == [("old", 90), ("new", 0)]


def test_a_port_of_unknown_protocol_is_tcp_and_udp_and_a_known_one_tcp():
    message = service("s", "10.96.0.1")
    message.service.ports.add(service_port=53, target_port=5353)
    message.service.ports.add(service_port=53, target_port=9999)
    message.service.ports.add(service_port=99, target_port=99, app_protocol=42)
    made = [(p.service_port, p.target_port, p.protocol) for p in decode(message).ports]
    assert made == [
        (80, 8080, Protocol.TCP),
        (53, 5353, Protocol.TCP),
        (53, 5353, Protocol.UDP),
        (99, 99, Protocol.TCP),
        (99, 99, Protocol.UDP),
    ]


def test_a_hundred_ports_on_one_service():
    message = service("s", "10.96.0.1", ports={port: port + 1 for port in range(1, 101)})
    assert len(decode(message).ports) == 100


def test_what_repeats_is_shared():
    decoder = MeshDecoder()
    messages = [workload(name, "10.244.0.1", serves=("a",), node="n") for name in ("x", "y")]
    x, y = (decoder.decode(m.workload.uid, m.SerializeToString()) for m in messages)
    assert isinstance(x, Workload)
    assert isinstance(y, Workload)
    assert x.services is y.services
    assert x.node is y.node


def test_unknown_fields_of_a_newer_istiod_are_ignored():
    payload = workload("w", "10.244.0.1").SerializeToString()
    extended = Address.FromString(payload)
    extended.workload.MergeFromString(b"\xf8\x7f\x01")
    assert MeshDecoder().decode(uid("w"), extended.SerializeToString()).name == "w"


def test_addresses_that_are_refused():
    message = workload("w")
    message.workload.addresses.append(b"12345")
    assert refusal(message) == "addresses: an IP address has 4 or 16 bytes, not 5"
    block = service("s")
    block.service.addresses.add(address=ip_address("10.0.0.0").packed, length=8)
    assert "10.0.0.0/8 is a block" in refusal(block)


@pytest.mark.parametrize(("service_port", "target_port"), [(0, 80), (65536, 80), (80, 65536)])
def test_ports_that_are_refused(service_port, target_port):
    message = service("s", "10.96.0.1", ports={service_port: target_port})
    assert "is not a port number" in refusal(message)
    serving = workload("w", "10.244.0.1")
    serving.workload.services["a/b"].ports.add(service_port=service_port, target_port=target_port)
    assert "is not a port number" in refusal(serving)


def test_names_that_do_not_agree_are_refused():
    assert "'Kubernetes//Pod/shop/w'" in refusal(workload("w", "10.244.0.1"), name="other")
    assert "not its name" in refusal(service("s"), name="other")


def test_what_is_neither_is_refused():
    assert refusal(Address(), name="x") == "neither a workload nor a service"
    with pytest.raises(BadResourceError, match=r"not a message of type istio\.workload\.Address"):
        MeshDecoder().decode("x", b"\xff\xff\xff")


@pytest.mark.parametrize("broken", ["no destination", "no port", "empty hostname"])
def test_waypoints_that_are_refused(broken):
    message = service("s", "10.96.0.1")
    waypoint = message.service.waypoint
    waypoint.hbone_mtls_port = 0 if broken == "no port" else 15008
    if broken == "no port":
        waypoint.address.address = b"\x0a\x00\x00\x01"
    if broken == "empty hostname":
        waypoint.hostname.namespace = "shop"
    assert "waypoint" in refusal(message)


def decoded_policy(message: Authorization):
    return decode_policy(f"{message.namespace}/{message.name}", message.SerializeToString())


def with_match(**fields) -> Authorization:
    message = policy("p")
    message.groups.add().rules.add().matches.append(Match(**fields))
    return message


def test_every_condition_of_a_match():
    strings = [{"exact": "a"}, {"prefix": "b"}, {"suffix": "c"}, {"presence": {}}]
    accounts = [{"namespace": "n", "serviceAccount": "s"}]
    block = {"address": ip_address("10.1.2.3").packed, "length": 24}
    block6 = {"address": ip_address("fd00::1").packed, "length": 64}
    mapped = {"address": ip_address("::ffff:10.9.9.9").packed, "length": 128}
    message = with_match(
        namespaces=strings,
        not_namespaces=strings[:1],
        principals=strings[1:2],
        not_principals=strings[3:],
        service_accounts=accounts,
        not_service_accounts=accounts,
        source_ips=[block, block6],
        not_source_ips=[mapped],
        destination_ips=[block],
        not_destination_ips=[block6],
        destination_ports=[80, 443],
        not_destination_ports=[0],
    )
    ((match,),) = decoded_policy(message).groups[0]
    assert [each.kind for each in match.namespaces] == list(StringKind)
    assert [each.value for each in match.namespaces] == ["a", "b", "c", ""]
    assert match.not_principals == (StringMatch(StringKind.PRESENCE),)
    assert match.service_accounts == (ServiceAccountMatch("n", "s"),)
    assert match.not_service_accounts == match.service_accounts
    assert match.source_ips == (ip_network("10.1.2.0/24"), ip_network("fd00::/64"))
    assert match.not_source_ips == (ip_network("10.9.9.9/32"),)
    assert match.destination_ips == (ip_network("10.1.2.0/24"),)
    assert match.not_destination_ips == (ip_network("fd00::/64"),)
    assert match.destination_ports == (80, 443)
    assert match.not_destination_ports == (0,)
    assert match.unreadable == ()


def test_conditions_that_this_version_cannot_read_are_kept_by_name():
    unknown = with_match(destination_ports=[80])
    match = unknown.groups[0].rules[0].matches[0]
    match.MergeFromString(b"\xf8\x7f\x01")
    match.extensions.add(name="geo")
    match.namespaces.add()
    ((made,),) = decoded_policy(unknown).groups[0]
    assert made.unreadable == ("field 2047", "extension geo", "namespaces")
    assert decoded_policy(unknown).unreadable == ("extension geo", "field 2047", "namespaces")


@pytest.mark.parametrize("where", ["policy", "group", "rule"])
def test_anything_unknown_around_the_conditions_is_refused(where):
    message = with_match(destination_ports=[80])
    group = message.groups[0]
    {"policy": message, "group": group, "rule": group.rules[0]}[where].MergeFromString(b"\x78\x01")
    with pytest.raises(BadResourceError, match="field 15 that is not known"):
        decoded_policy(message)


@pytest.mark.parametrize(
    ("fields", "reason"), [({"scope": 9}, "scope 9"), ({"action": 5}, "action 5")]
)
def test_scopes_and_actions_that_are_not_known_are_refused(fields, reason):
    with pytest.raises(BadResourceError, match=reason):
        decoded_policy(policy("p", **fields))


def test_blocks_ports_and_names_that_are_refused():
    with pytest.raises(BadResourceError, match=r"source_ips: 10\.0\.0\.0/33 is longer"):
        decoded_policy(with_match(source_ips=[{"address": b"\x0a\0\0\0", "length": 33}]))
    with pytest.raises(BadResourceError, match="destination_ips: an IP address has 4 or 16"):
        decoded_policy(with_match(destination_ips=[{"address": b"", "length": 0}]))
    with pytest.raises(BadResourceError, match="70000 is not a port"):
        decoded_policy(with_match(destination_ports=[70000]))
    with pytest.raises(BadResourceError, match="not its name"):
        decode_policy("other/name", policy("p").SerializeToString())
