# SPDX-License-Identifier: Apache-2.0
"""What a real Istiod sent, sent again over real gRPC to a daemon: in the kernel, and on the wire."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import product
from pathlib import Path

import pytest

from runtime.bpf.maps import BpfMap
from runtime.model.mesh import Protocol, Service, Workload
from runtime.model.policy import Connection, Policy, decide, identity_of
from runtime.source.istiod.decode_mesh import MeshDecoder
from runtime.source.istiod.decode_policy import decode_policy
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse
from runtime.source.istiod.wire import ADDRESS_TYPE
from runtime.tables.ops import Contents
from runtime.tables.place import Place
from tests.dataplane.world import Agent
from tests.launch.actors import add_addresses, managed_client, server
from tests.launch.conftest import Node
from tests.launch.control_plane import SOURCE, ControlPlane
from tests.tables.tables_model import Maps, mapped, naive

pytestmark = pytest.mark.root

NODE = "node1"  # of the recording: all of its pods are there
OUTSIDE = "10.244.0.70"


class Recording:
    """The recorded responses, decoded."""

    def __init__(self, directory: Path) -> None:
        self.files = (directory / "delta-Address.pb", directory / "delta-Authorization.pb")
        decoder = MeshDecoder()
        addresses, policies = (
            [(each.name, each.resource.value) for each in found.resources]
            for found in (DeltaDiscoveryResponse.FromString(one.read_bytes()) for one in self.files)
        )
        mesh = [decoder.decode(*each) for each in addresses]
        self.services = {one.key: one for one in mesh if isinstance(one, Service)}
        self.workloads = {one.uid: one for one in mesh if isinstance(one, Workload)}
        self.policies: list[Policy] = [decode_policy(*each) for each in policies]

    @property
    def listening(self) -> set[tuple[str, int, str]]:
        """Address, port and uid of everything that serves."""
        return {
            (str(address), port.target_port, one.uid)
            for one in self.workloads.values()
            for address in one.addresses
            for ports in one.services.values()
            for port in ports
        }

    def at(self, address: str) -> Workload | None:
        found = (one for one in self.workloads.values() if ip_address(address) in one.addresses)
        return next(found, None)

    def allows(self, source: str, destination: Workload, port: int) -> bool:
        """What the reference says of a connection to a workload."""
        who = self.at(source)
        connection = Connection(
            source=ip_address(source),
            destination=destination.addresses[0],
            destination_port=port,
            identity=identity_of(who) if who else None,
        )
        applying = [one for one in self.policies if one.applies_to(destination)]
        return decide(applying, connection).allowed


@pytest.fixture(scope="module")
def recording(checkout: Path) -> Recording:
    return Recording(checkout / "tests/data/xds/bookstore")


@pytest.fixture
def mesh(node: Node, recording: Recording) -> ControlPlane:
    """Its pods answer with their uids, and its control plane is up."""
    pods = {str(address) for one in recording.workloads.values() for address in one.addresses}
    add_addresses(node, *(pods - {"10.244.0.11", "10.244.0.12"}), OUTSIDE)
    server(node, *(("tcp", *place) for place in sorted(recording.listening)))
    control_plane = ControlPlane(node)
    assert [control_plane.load(one) for one in recording.files] == [
        len(recording.services) + len(recording.workloads),
        len(recording.policies),
    ]
    return control_plane.start()


def contents(node: Node) -> Contents:
    """The service tables in the kernel, read from their pins."""
    found = {}
    for name in ("frontends", "clusters", "slots"):
        (pinned,) = node.pins.glob(f"*/*/{name}")
        table = BpfMap.pinned(pinned)
        found[name] = dict(table.items())
        table.close()
    return Contents(**found)


def answering(client: Agent, host: str, port: int, source: str = "") -> str:
    """Who answers a connection: a uid, or an error's name."""
    number = client("connect", "tcp", host, port, source)
    if not isinstance(number, int):
        return str(number)
    answer = bytes.fromhex(client("say", number, "?")).decode().removesuffix(" ?")
    client("close", number)
    return answer


def test_the_kernel_holds_what_istiod_said_and_nothing_else(
    node: Node, mesh: ControlPlane, recording: Recording
) -> None:
    node.daemon("--node", NODE, source=SOURCE).wait_ready()
    maps = Maps(contents(node))
    maps.check_weights()
    found = maps.view()
    assert found == naive(recording.services, recording.workloads, Place(node=NODE))
    assert len(found) >= 7
    state = mesh.state()
    assert state["acks"] >= 2
    assert state["nacks"] == []
    status = node.ask("status")
    assert status["sync"]["rejected"] == {}
    assert status["counts"]["services"] == len(recording.services)
    assert status["counts"]["policies"] == len(recording.policies)


def test_every_recorded_service_is_answered_by_its_workloads_alone(
    node: Node, mesh: ControlPlane, recording: Recording
) -> None:
    node.daemon("--node", NODE, source=SOURCE).wait_ready()
    client = managed_client(node)
    tried = 0
    for key, service in recording.services.items():
        for at, port in product(service.addresses, service.ports):
            if port.protocol is not Protocol.TCP:
                continue
            expected = {
                uid
                for uid, one in recording.workloads.items()
                if port.service_port in {each.service_port for each in one.services.get(key, ())}
                and recording.allows("10.244.0.4", one, port.target_port)
            }
            host = str(at.address)
            # Who is let in nowhere is refused; an external workload is guarded where it is left for.
            expected = expected or {"ConnectionRefusedError"}
            answers = {answering(client, host, port.service_port, "10.244.0.4") for _ in range(30)}
            assert answers == expected, (key, port.service_port)
            tried += 1
    assert tried >= 7


def test_the_recorded_policies_are_enforced_as_the_reference_says(
    node: Node, mesh: ControlPlane, recording: Recording
) -> None:
    node.daemon("--node", NODE, source=SOURCE).wait_ready()
    client = managed_client(node)
    sources = sorted(
        {
            str(address)
            for one in recording.workloads.values()
            for address in one.addresses
            if address.is_private and one.node == NODE
        }
        | {OUTSIDE}
    )
    outcomes = set()
    for host, port, uid in sorted(recording.listening):
        there = recording.workloads[uid]
        for source in sources:
            if source == host:
                continue
            expected = recording.allows(source, there, port)
            found = answering(client, host, port, source)
            assert found == (uid if expected else "ConnectionRefusedError"), (source, host, port)
            outcomes.add(expected)
    assert outcomes == {True, False}  # the recording has both


def test_removals_and_a_bad_resource_leave_the_rest_of_the_recording(
    node: Node, mesh: ControlPlane, recording: Recording
) -> None:
    node.daemon("--node", NODE, source=SOURCE).wait_ready()
    gone = "Kubernetes//Pod/bookstore/reviews-v2"
    bad = "bookstore/ratings.bookstore.svc.cluster.local"
    mesh.remove(gone)
    mesh.put_bytes(bad, b"\xff\xff", version="broken")
    mesh.push()
    node.until(lambda: mesh.state()["nacks"], "the bad resource was not refused")
    left = {uid: one for uid, one in recording.workloads.items() if uid != gone}
    expected = naive(recording.services, left, Place(node=NODE))
    node.until(lambda: Maps(contents(node)).view() == expected, "the removal did not arrive")
    (nack,) = mesh.state()["nacks"]
    assert bad in nack
    assert (mapped("10.96.159.132"), 9080, 6) in expected  # ratings: its last good state
    assert bad in " ".join(node.ask("status")["sync"]["rejected"])
    metrics = node.http("/status/metric", port=15020)[1].splitlines()
    assert "kmesh_istiod_connected 1.0" in metrics
    assert "kmesh_istiod_nacks_total 1.0" in metrics
    assert any(line.startswith("kmesh_rejected_resource{") and bad in line for line in metrics)
    mesh.clear(type_url=ADDRESS_TYPE)
    mesh.push()
    node.until(lambda: contents(node) == Contents(), "not all is gone")
