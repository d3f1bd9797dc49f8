# SPDX-License-Identifier: Apache-2.0
"""A small mesh with one service of each kind, for daemons that are ended while connections are held."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from runtime.source.istiod.proto.security_pb2 import Authorization
from runtime.source.istiod.proto.workload_pb2 import Address
from runtime.source.istiod.wire import AUTHORIZATION_TYPE
from tests.dataplane.test_dataplane_waypoint import parse
from tests.dataplane.world import Agent
from tests.launch.actors import add_addresses, managed_client, server
from tests.launch.conftest import Node
from tests.launch.control_plane import ControlPlane
from tests.source.istiod.mesh_messages import service, service_name, workload

ECHO, DNS, SHOP, WAYPOINT = "10.96.0.20", "10.96.0.21", "10.96.0.22", "10.96.0.23"
ECHO_PODS, DNS_PODS = ("10.244.0.21",), ("10.244.0.22", "10.244.0.23")
WAYPOINT_POD, CLIENT_POD, INTRUDER = "10.244.0.24", "10.244.0.50", "10.244.0.66"
ECHO_PORT, DNS_PORT, WAYPOINT_PORT = 7000, 53, 15019
SPIFFE = b"spiffe://cluster.local/ns/shop/sa/cart"
NODE_NAME = "n1"


def made_service(name: str, address: str, port: int, protocol: str) -> Any:
    made = service(name, address)
    (only,) = made.service.ports
    only.service_port = only.target_port = port
    only.app_protocol = (
        Address.DESCRIPTOR.file.enum_types_by_name["AppProtocol"].values_by_name[protocol].number
    )
    return made


def pod(name: str, address: str, serves: str = "", port: int = 0, target: int = 0) -> Any:
    made = workload(name, address, node=NODE_NAME, service_account="cart")
    if serves:
        made.workload.services[service_name(serves)].ports.add(
            service_port=port, target_port=target or port
        )
    return made


def everything() -> list[Any]:
    """All services and workloads."""
    shop = made_service("shop", SHOP, 80, "HTTP11")
    shop.service.waypoint.hostname.namespace = "shop"
    shop.service.waypoint.hostname.hostname = "wp.shop.svc.cluster.local"
    shop.service.waypoint.hbone_mtls_port = WAYPOINT_PORT
    dns = made_service("dns", DNS, DNS_PORT, "UNKNOWN")
    return [
        made_service("echo", ECHO, ECHO_PORT, "TCP"), dns, shop,
        made_service("wp", WAYPOINT, WAYPOINT_PORT, "TCP"),
        *(pod(f"echo-{n}", at, "echo", ECHO_PORT) for n, at in enumerate(ECHO_PODS)),
        *(pod(f"dns-{n}", at, "dns", DNS_PORT) for n, at in enumerate(DNS_PODS)),
        pod("wp-0", WAYPOINT_POD, "wp", WAYPOINT_PORT),
        pod("client", CLIENT_POD),
    ]  # fmt: skip


def nobody_from(address: str) -> Any:
    """A policy for the whole mesh: this address may connect to nothing."""
    policy = Authorization(name="no-intruder", namespace="istio-system", action=1)
    match = policy.groups.add().rules.add().matches.add()
    match.source_ips.add(address=ip_address(address).packed, length=32)
    return policy


def start_mesh(node: Node) -> ControlPlane:
    """The pods' servers, and the control plane that tells of them."""
    add_addresses(node, *ECHO_PODS, *DNS_PODS, WAYPOINT_POD, CLIENT_POD, INTRUDER)
    server(
        node,
        *(("tcp", at, ECHO_PORT, f"echo-{n}") for n, at in enumerate(ECHO_PODS)),
        *(("udp", at, DNS_PORT, f"dns-{n}") for n, at in enumerate(DNS_PODS)),
        ("tcp", WAYPOINT_POD, WAYPOINT_PORT, "wp"),
    )
    control_plane = ControlPlane(node)
    for message in everything():
        control_plane.put_address(message)
    control_plane.put(
        "istio-system/no-intruder", nobody_from(INTRUDER), type_url=AUTHORIZATION_TYPE
    )
    return control_plane.start()


class Held:
    """What a managed client holds open: one connection of each kind.

    The one through the waypoint has not said a word yet, so the waypoint does not know it.
    """

    def __init__(self, node: Node) -> None:
        self.client: Agent = managed_client(node)
        self.tcp = self.client("connect", "tcp", ECHO, ECHO_PORT)
        self.udp = self.client("connect", "udp", DNS, DNS_PORT)
        self.loose = self.client("loose", 4)
        self.idle = self.client("connect", "tcp", SHOP, 80, CLIENT_POD)
        assert all(isinstance(one, int) for one in (self.tcp, self.udp, self.idle))
        self.udp_answer = self.say(self.udp)
        self.loose_answer = self.send_loose()

    def say(self, number: int, text: str = "hello") -> bytes:
        return bytes.fromhex(self.client("say", number, text))

    def send_loose(self) -> list[Any]:
        return list(self.client("send_to", self.loose, DNS, DNS_PORT, "?"))

    def check(self) -> None:
        """All as if nothing had happened; the idle connection stays idle."""
        assert self.say(self.tcp) == b"echo-0 hello"
        assert self.client("peer", self.tcp) == [ECHO, ECHO_PORT]
        assert self.say(self.udp) == self.udp_answer
        assert self.client("peer", self.udp) == [DNS, DNS_PORT]
        assert self.loose_answer[1:] == [DNS, DNS_PORT]
        assert all(self.send_loose() == self.loose_answer for _ in range(8))
        assert self.client("peer", self.idle) == [SHOP, 80]

    def introduce(self) -> None:
        """The idle connection's first words: the waypoint is told who, from where and where to."""
        asked = "GET / HTTP/1.1\r\n\r\n"
        said = self.say(self.idle, asked)
        if not said.endswith(asked.encode()):  # The header and the request came apart.
            said += bytes.fromhex(self.client("hear", self.idle, asked))
        assert said.startswith(b"wp ")
        found = parse(said.replace(b"wp ", b""))
        assert (found["source"], found["destination"], found["port"]) == (CLIENT_POD, SHOP, 80)
        assert found["tlvs"][0xD0] == SPIFFE
        assert found["rest"] == asked.encode()
        assert self.say(self.idle, "more") == b"wp more"

    def refused(self, pod: str = ECHO_PODS[0]) -> bool:
        """Whether the policy holds: the intruder does not reach a pod, and others do."""
        other = self.client("connect", "tcp", pod, ECHO_PORT, CLIENT_POD)
        assert isinstance(other, int)
        self.client("close", other)
        found = self.client("connect", "tcp", pod, ECHO_PORT, INTRUDER)
        return bool(found == "ConnectionRefusedError")
