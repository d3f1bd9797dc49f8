# SPDX-License-Identifier: Apache-2.0
"""From `--source KIND:WHERE` to a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from runtime import log
from runtime.cluster.api import Api
from runtime.errors import KmeshError
from runtime.model.mesh import IPAddress
from runtime.source.istiod.node import Node
from runtime.source.update import Source

Opener = Callable[[], Source]


@dataclass(frozen=True, slots=True)
class Found:
    """A source that can be opened, and where in the mesh it puts this node.

    Attributes:
        open: opens it; called within the event loop in which it stays.
        cluster: the cluster's name; "" where that is for the workloads to say.
        network: the network's name; None where that is for the workloads to say.
    """

    open: Opener
    cluster: str = ""
    network: str | None = None


_log = log.get("launch")
_PLAINTEXT_PORT = "15010"  # Istiod's, without identity; 15012 is TLS


def find_source(text: str, *, http: bool = False, on_demand: bool = False) -> Found:
    """Check what a user named; the source itself is opened within the event loop.

    Args:
        text: "files:DIR", "istiod", "istiod:HOST:PORT", "kubernetes".
        http: HTTP is wanted from the start; files always have it.
        on_demand: hold only what is asked for; Istiod alone can be asked.

    Raises:
        KmeshError: there is no such source, or it cannot be opened.
    """
    kind, _, where = text.partition(":")
    if on_demand and kind != "istiod":
        raise KmeshError(
            f"the source {text} cannot be asked on demand",
            hint="leave --on-demand out: only Istiod can",
        )
    if kind == "files" and where:
        return Found(_files(Path(where).absolute()))
    if kind == "istiod":
        return _istiod(where, http=http, on_demand=on_demand)
    if kind == "kubernetes" and not where:
        return Found(_kubernetes())
    raise KmeshError(
        f"no source {text!r}",
        hint="files:DIR reads Kubernetes YAML from a directory; istiod or istiod:HOST:PORT asks Istiod; "
        "kubernetes asks the API server",
    )


def told_address(environment: Mapping[str, str]) -> frozenset[IPAddress]:
    """This node's address, where the daemon's pod is told it: it may be on a loopback interface."""
    with suppress(ValueError):
        return frozenset({ip_address(environment.get("INSTANCE_IP", ""))})
    return frozenset()


def _files(directory: Path) -> Opener:
    from runtime.source.files import FilesSource

    source = FilesSource(directory)
    return lambda: source


def _kubernetes() -> Opener:
    from runtime.cluster.client import Cluster
    from runtime.source.kubernetes_api import KubernetesSource

    inside = "KUBERNETES_SERVICE_HOST" in os.environ
    api = Cluster.inside() if inside else Cluster.by_kubeconfig()
    return lambda: KubernetesSource(api)


def _istiod(address: str, *, http: bool, on_demand: bool) -> Found:
    host, _, port = address.rpartition(":")
    if address and not (host and port):
        raise KmeshError(f"{address!r} is no address of Istiod", hint="write istiod:HOST:PORT")
    plain = port == _PLAINTEXT_PORT or address.startswith("unix:")
    node = Node.from_environment(os.environ)
    return Found(
        lambda: _open_istiod(node, address, plain=plain, http=http, on_demand=on_demand),
        cluster=os.environ.get("CLUSTER_ID", ""),  # not the default that Istiod is told
        network=node.network or None,
    )


def _open_istiod(node: Node, address: str, *, plain: bool, http: bool, on_demand: bool) -> Source:
    from runtime.source.istiod.config import IstiodConfig
    from runtime.source.istiod.credentials import Credentials
    from runtime.source.istiod.mesh import IstiodMesh

    config = IstiodConfig(node=node, on_demand=on_demand, whole_for_policies=on_demand)
    if address:
        credentials = Credentials(root=None, token=None) if plain else Credentials()
        config = replace(config, address=address, credentials=credentials)
    source = IstiodMesh(config, http=http)
    api = _api_beside()
    if api is None:
        return source
    from runtime.source.policy_objects import WithPolicyObjects

    made: Source = WithPolicyObjects(source, api)
    return made


def _api_beside() -> Api | None:
    """The API server of this pod's cluster, or of the kubeconfig that is named; None where neither is told."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ and "KUBECONFIG" not in os.environ:
        return None
    from runtime.cluster.client import Cluster

    try:
        return (
            Cluster.inside() if "KUBERNETES_SERVICE_HOST" in os.environ else Cluster.by_kubeconfig()
        )
    except KmeshError as error:
        _log.warning("AuthorizationPolicies: %s; policies are as Istiod tells them", error)
        return None
