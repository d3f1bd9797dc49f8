# SPDX-License-Identifier: Apache-2.0
"""Documents to manifests: what is accepted, and how what is not is named."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from runtime.model.mesh import AppProtocol, BalancingMode, Protocol, Scope, Service
from runtime.source.kubernetes_slice import EndpointSlice
from runtime.source.kubernetes_yaml import Parsed, parse_text

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  namespace: shop
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.5]}]
"""


def only(text: str) -> Service | EndpointSlice:
    parsed = parse_text(text, file="a.yaml")
    assert parsed.rejected == {}
    manifest: Service | EndpointSlice
    (manifest,) = parsed.manifests.values()
    return manifest


def the_slice(text: str) -> EndpointSlice:
    made = only(text)
    assert isinstance(made, EndpointSlice)
    return made


def the_service(spec: str) -> Service:
    parsed = service(spec)
    assert parsed.rejected == {}
    (made,) = parsed.manifests.values()
    assert isinstance(made, Service)
    return made


def service(spec: str, *, metadata: str = "{name: web, namespace: shop}") -> Parsed:
    text = f"apiVersion: v1\nkind: Service\nmetadata: {metadata}\nspec: {spec}\n"
    return parse_text(text, file="a.yaml")


def reason(parsed: Parsed) -> str:
    ((resource, why),) = parsed.rejected.items()
    return f"{resource}: {why}"


def test_a_service_has_its_addresses_ports_and_hostname() -> None:
    made = only(SERVICE)
    assert isinstance(made, Service)
    assert made.key == "shop/web.shop.svc.cluster.local"
    assert [each.address for each in made.addresses] == [ip_address("10.96.0.10")]
    (port,) = made.ports
    assert (port.service_port, port.target_port, port.name) == (80, 8080, "http")
    assert (port.protocol, port.app_protocol) == (Protocol.TCP, AppProtocol.HTTP11)


def test_dual_stack_takes_all_cluster_ips() -> None:
    made = the_service("{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']}")
    assert [str(each.address) for each in made.addresses] == ["10.96.0.1", "fd00::1"]


def test_a_headless_service_has_no_address_and_is_accepted() -> None:
    assert the_service("{clusterIP: None, ports: [{port: 80}]}").addresses == ()


def test_the_namespace_is_default_where_none_is_given() -> None:
    parsed = service("{clusterIP: 10.96.0.1}", metadata="{name: web}")
    assert list(parsed.manifests) == [("Service", "default", "web")]


def test_a_named_target_port_is_left_to_the_slices() -> None:
    made = the_service("{clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: web}]}")
    assert made.ports[0].target_port == 0


def test_the_same_number_may_serve_tcp_and_udp() -> None:
    ports = "[{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]"
    made = the_service(f"{{clusterIP: 10.96.0.1, ports: {ports}}}")
    assert [port.protocol for port in made.ports] == [Protocol.TCP, Protocol.UDP]


def test_traffic_policies_become_load_balancing() -> None:
    local = the_service("{clusterIP: 10.96.0.1, internalTrafficPolicy: Local}")
    assert local.load_balancing.mode is BalancingMode.STRICT
    assert local.load_balancing.routing_preference == (Scope.NODE,)
    near = the_service("{clusterIP: 10.96.0.1, trafficDistribution: PreferClose}")
    assert near.load_balancing.mode is BalancingMode.FAILOVER
    assert Scope.ZONE in near.load_balancing.routing_preference


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        ("{type: ExternalName, externalName: x.org}", "spec.type", "ExternalName"),
        ("{clusterIP: 10.96.0.300}", "spec.clusterIP", "IPv4 or IPv6 address, not '10.96.0.300'"),
        ("{clusterIP: 0.0.0.0}", "spec.clusterIP", "can be connected to"),
        ("{}", "spec.clusterIP", "no API server is here to assign one"),
        ("{clusterIPs: [10.96.0.1, 10.96.0.1]}", "spec.clusterIPs", "twice"),
        ("{clusterIP: 10.96.0.1, ports: [{port: 0}]}", "spec.ports[0].port", "from 1 to 65535"),
        ("{clusterIP: 10.96.0.1, ports: [{port: 70000}]}", "spec.ports[0].port", "70000"),
        ("{clusterIP: 10.96.0.1, ports: [{port: '80'}]}", "spec.ports[0].port", "'80'"),
        ("{clusterIP: 10.96.0.1, ports: [{port: true}]}", "spec.ports[0].port", "True"),
        ("{clusterIP: 10.96.0.1, ports: [{}]}", "spec.ports[0].port", "missing"),
        ("{clusterIP: 10.96.0.1, ports: 80}", "spec.ports", "must be a list, not 80"),
        ("{clusterIP: 10.96.0.1, ports: [80]}", "spec.ports[0]", "must be a mapping"),
        (
            "{clusterIP: 10.96.0.1, ports: [{port: 1, protocol: SCTP}]}",
            "spec.ports[0].protocol",
            "SCTP",
        ),
        ("{clusterIP: 10.96.0.1, ports: [{port: 1}, {port: 1}]}", "spec.ports[1]", "twice"),
        (
            "{clusterIP: 10.96.0.1, ports: [{port: 1}, {port: 2}]}",
            "spec.ports[1]",
            "name is needed",
        ),
    ],
)
def test_a_bad_field_is_named_with_its_file_document_and_object(
    spec: str, field: str, why: str
) -> None:
    told = reason(service(spec))
    assert told.startswith(f"a.yaml document 1 (Service shop/web): {field}: ")
    assert why in told


def test_a_name_that_yaml_takes_for_something_else_gets_a_hint() -> None:
    parsed = service("{clusterIP: 10.96.0.1}", metadata="{name: no}")
    assert (
        reason(parsed)
        == "a.yaml document 1: metadata.name: must be a string, not False: put it in quotes"
    )
    assert not parsed.whole


def test_a_slice_has_its_service_ports_and_endpoints() -> None:
    made = only(SLICE)
    assert isinstance(made, EndpointSlice)
    assert made.service == "shop/web.shop.svc.cluster.local"
    assert made.endpoints[0].addresses == (ip_address("10.244.0.5"),)
    assert made.endpoints[0].ready


@pytest.mark.parametrize(
    ("conditions", "ready", "draining"),
    [
        ("{}", True, False),
        ("{ready: true}", True, False),
        ("{ready: false}", False, False),
        ("{ready: false, serving: true, terminating: true}", False, True),
        ("{ready: false, serving: false, terminating: true}", False, False),
    ],
)
def test_conditions_say_who_takes_connections(
    conditions: str, *, ready: bool, draining: bool
) -> None:
    made = the_slice(SLICE.replace("[10.244.0.5]", f"[10.244.0.5], conditions: {conditions}"))
    assert (made.endpoints[0].ready, made.endpoints[0].draining) == (ready, draining)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "kubernetes.io/service-name",
            "other",
            'metadata.labels["kubernetes.io/service-name"]: missing',
        ),
        ("IPv4", "FQDN", "addressType: names are not resolved"),
        ("10.244.0.5", "'fd00::5'", "endpoints[0].addresses[0]: fd00::5 is not of the slice's"),
        ("[10.244.0.5]", "[]", "endpoints[0].addresses: missing"),
        ("port: 8080", "port: 0", "ports[0].port: must be a number from 1 to 65535, not 0"),
        ("discovery.k8s.io/v1", "v1", "apiVersion: must be discovery.k8s.io/v1"),
    ],
)
def test_a_bad_slice_is_named(old: str, new: str, why: str) -> None:
    told = reason(parse_text(SLICE.replace(old, new), file="a.yaml"))
    assert told.startswith(f"a.yaml document 1 (EndpointSlice shop/web-1): {why}")


def test_bad_yaml_costs_only_its_document_and_tells_the_line() -> None:
    parsed = parse_text(f"{SERVICE}---\na: [b\n---\n{SLICE}", file="a.yaml")
    assert [identity[0] for identity in parsed.manifests] == ["Service", "EndpointSlice"]
    told = reason(parsed)
    assert told.startswith("a.yaml document 2: not YAML: ")
    assert "(line 10," in told
    assert not parsed.whole


@pytest.mark.parametrize(
    "text", ["\x00", "a: !!python/object:os.system x", "&a [*b]", "- [" * 2000]
)
def test_hostile_yaml_is_a_rejection(text: str) -> None:
    parsed = parse_text(text, file="a.yaml")
    assert list(parsed.rejected) == ["a.yaml document 1"]


@pytest.mark.parametrize("text", ["", "---\n---\n", "# only a comment\n", "---\nnull\n"])
def test_empty_documents_are_nothing(text: str) -> None:
    assert parse_text(text, file="a.yaml") == Parsed()


def test_a_marker_inside_a_text_block_needs_the_first_column() -> None:
    text = SERVICE + "description: |\n  ---\n  text\n"
    assert only(text) == only(SERVICE)


def test_lists_are_read_item_by_item() -> None:
    item = SERVICE.strip().replace("\n", "\n  ")
    bad = "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {clusterIP: x}}"
    parsed = parse_text(f"kind: List\nitems:\n- {item}\n- {bad}\n", file="a.yaml")
    assert list(parsed.manifests) == [("Service", "shop", "web")]
    assert list(parsed.rejected) == ["a.yaml document 1 item 2 (Service default/bad)"]


def test_other_kinds_are_told_and_namespaces_are_not() -> None:
    text = "kind: Namespace\n---\nkind: Deployment\n---\nkind: Deployment\n"
    parsed = parse_text(text, file="a.yaml")
    assert (parsed.unknown, parsed.rejected) == ({"Deployment"}, {})


def test_json_is_yaml() -> None:
    text = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"w"},"spec":{"clusterIP":"10.96.0.1"}}'
    assert list(parse_text(text, file="a.yaml").manifests) == [("Service", "default", "w")]


def test_the_second_of_two_is_refused() -> None:
    parsed = parse_text(f"{SERVICE}---{SERVICE.replace('10.96.0.10', '10.96.0.11')}", file="a.yaml")
    assert parsed.manifests["Service", "shop", "web"] == only(SERVICE)
    assert "already" in reason(parsed)


HOSTILE = {
    "contains itself": "&a {kind: List, items: [*a]}",
    "brackets": "[" * 200_000,
    "braces": "{a: " * 5_000 + "1" + "}" * 5_000,
    "dashes": "- " * 100_000 + "1",
    "lists of lists": "a0: &a0 {kind: List, items: []}\n"
    + "".join(f"a{n}: &a{n} {{kind: List, items: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 12))
    + "kind: List\nitems: [*a11]\n",
    "merges": "a0: &a0 {b: c}\n"
    + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
    "a chain": "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2_000)),
    "no truth": "kind: !!bool maybe",
    "no number": 'kind: !!int ""',
    "no time": "kind: !!timestamp never",
    "a number without end": f"kind: Service\napiVersion: v1\nmetadata: {{name: x}}\n"
    f"spec: {{clusterIP: 10.96.0.9, ports: [{{port: 0x{'f' * 10_000}}}]}}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_document_costs_only_itself(text: str) -> None:
    parsed = parse_text(f"{SERVICE}\n---\n{text}\n---\n{SLICE}", file="a.yaml")
    assert list(parsed.rejected) == ["a.yaml document 2"]
    assert len(parsed.manifests) == 2


def test_aliases_and_merges_that_people_write_are_followed() -> None:
    text = SERVICE.replace("spec:", "spec:\n  <<: &b {type: ClusterIP}\n  x: [*b, *b]")
    assert isinstance(only(text), Service)
