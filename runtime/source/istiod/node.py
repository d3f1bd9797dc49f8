# SPDX-License-Identifier: Apache-2.0
"""Who this client says it is: the node id and the metadata that Istiod reads.

Istiod builds what it sends from the node type. Only `ztunnel` gets the workload API of the whole
mesh whatever its own namespace; `sidecar` is what the plain ADS client uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NO_ADDRESS = "0.0.0.0"  # noqa: S104  # said on the wire, nothing is bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """This node, as Istiod is told about it.

    Attributes:
        name: the pod that the client runs in.
        namespace: its namespace.
        address: its IP address.
        node_name: the Kubernetes node.
        cluster_id: the cluster's name in the mesh; also sent as gRPC metadata.
        network: the network in which its addresses mean something, "" for the default one.
        kind: `ztunnel` or `sidecar`.
        domain: the DNS domain of the cluster's services.
    """

    name: str
    namespace: str
    address: str = _NO_ADDRESS
    node_name: str = ""
    service_account: str = ""
    cluster_id: str = "Kubernetes"
    mesh_id: str = "cluster.local"
    network: str = ""
    istio_version: str = ""
    kind: str = "ztunnel"
    domain: str = "cluster.local"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Node:
        """Read the variables that the daemon set's manifest fills from the pod (downward API)."""
        get = environment.get
        return cls(
            name=get("POD_NAME") or get("HOSTNAME") or "kmesh",
            namespace=get("POD_NAMESPACE") or "kmesh-system",
            address=get("INSTANCE_IP") or _NO_ADDRESS,
            node_name=get("NODE_NAME") or "",
            service_account=get("SERVICE_ACCOUNT") or "kmesh",
            cluster_id=get("CLUSTER_ID") or "Kubernetes",
            mesh_id=get("MESH_ID") or "cluster.local",
            network=get("NETWORK") or "",
            istio_version=get("ISTIO_VERSION") or "",
        )

    @property
    def id(self) -> str:
        pod = f"{self.name}.{self.namespace}"
        return f"{self.kind}~{self.address}~{pod}~{self.namespace}.svc.{self.domain}"

    def metadata(self) -> dict[str, str]:
        """The metadata, without what is not known."""
        known = {
            "NAMESPACE": self.namespace,
            "CLUSTER_ID": self.cluster_id,
            "INSTANCE_IPS": self.address,
            "MESH_ID": self.mesh_id,
            "NETWORK": self.network,
            "NODE_NAME": self.node_name,
            "SERVICE_ACCOUNT": self.service_account,
            "ISTIO_VERSION": self.istio_version,
        }
        return {name: value for name, value in known.items() if value}

    def to_wire(self) -> Any:
        """As the first request of a stream carries it."""
        from runtime.source.istiod.proto.core_pb2 import Node as WireNode

        wire = WireNode(id=self.id, user_agent_name="kmesh")
        wire.metadata.update(self.metadata())
        return wire
