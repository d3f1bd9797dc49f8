# SPDX-License-Identifier: Apache-2.0
"""HTTPRoutes from a real API server: its kind comes, its objects change, and its kind goes.

An etcd and an API server alone, on this machine's loopback: no node, and nothing of the host is touched.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.cluster import binaries, manifests, pki
from runtime.cluster.api import ROUTES, ApiError, namespaced
from runtime.cluster.client import Cluster
from runtime.model.http import Forward
from runtime.model.http_picture import HttpPicture
from runtime.source.kubernetes_api import KubernetesSource
from runtime.source.update import Update
from tests.launch.conftest import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not binaries.are_built() or not shutil.which("etcd") or not shutil.which("openssl"),
        reason="no API server: python -m ci.cluster prepare (and etcd-server, openssl)",
    ),
]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/gateway.networking.k8s.io/v1"
READER = "kmesh-reader"
WEB, CANARY = (f"outbound|80||{name}.default.svc.cluster.local" for name in ("web", "canary"))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two kubeconfigs, of the administrator and of one who may do what the chart's role allows."""
    home = tmp_path_factory.mktemp("api")
    client, peer, secure = free_ports(3)
    etcd = f"http://127.0.0.1:{client}"
    pki.make(home / "pki", addresses=["127.0.0.1"])
    tokens = home / "pki" / "tokens.csv"
    tokens.write_text(tokens.read_text() + f"{READER},{READER},{READER}\n")
    url = f"https://127.0.0.1:{secure}"
    pki.kubeconfig(home / "admin", server=url, authority=home / "pki" / "ca.crt")
    (home / "reader").write_text((home / "admin").read_text().replace(pki.TOKEN, READER))
    keys = home / "pki"
    commands = (
        [
            *("etcd", "--data-dir", str(home / "etcd"), "--unsafe-no-fsync", "--logger", "zap"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        ],
        [
            *(str(binaries.kube()), "kube-apiserver", f"--etcd-servers={etcd}"),
            *("--bind-address=127.0.0.1", f"--secure-port={secure}"),
            *("--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"),
            *("--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC"),
            *(f"--tls-cert-file={keys}/api.crt", f"--tls-private-key-file={keys}/api.key"),
            *(f"--client-ca-file={keys}/ca.crt", f"--token-auth-file={tokens}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}/sa.pub",
            f"--service-account-signing-key-file={keys}/sa.key",
        ],
    )
    with ExitStack() as stack:
        for name, argv in zip(("etcd", "apiserver"), commands, strict=True):
            log = stack.enter_context((home / f"{name}.log").open("wb"))
            process = stack.enter_context(subprocess.Popen(argv, stdout=log, stderr=log, cwd=home))
            stack.callback(process.kill)
        api = Cluster.by_kubeconfig(home / "admin")

        def is_up() -> bool:
            with suppress(ApiError):
                return bool(api.get("/api/v1/namespaces/default"))
            return False

        until(is_up, "the API server does not come up")
        yield home


@pytest.fixture(scope="module")
def api(server: Path) -> Cluster:
    """The administrator; the reader has the role that the chart gives."""
    made = Cluster.by_kubeconfig(server / "admin")
    role = next(
        each
        for each in yaml.safe_load_all(manifests.template("--set", "source=kubernetes"))
        if each and each["kind"] == "ClusterRole" and each["metadata"]["name"].endswith("-kmesh")
    )
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    made.post(f"{rbac}/clusterroles", role)
    binding = {
        "metadata": {"name": READER},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": role["metadata"]["name"],
        },
        "subjects": [{"kind": "User", "name": READER, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    made.post(f"{rbac}/clusterrolebindings", binding)
    for name in ("web", "canary"):
        ports = [{"port": 80, "targetPort": 8080}]
        service = {"metadata": {"name": name}, "spec": {"ports": ports}}
        made.post(namespaced("default", "services"), service)
        part = {
            "metadata": {
                "name": f"{name}-1",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["192.0.2.1" if name == "web" else "192.0.2.2"]}],
        }
        slices = namespaced("default", "endpointslices", group="/apis/discovery.k8s.io/v1")
        made.post(slices, part)
    return made


def put_kind(api: Cluster, checkout: Path) -> None:
    """Make the Gateway API's kinds, and wait until they are served."""
    text = (checkout / "ci" / "cluster" / "gateway-api.yaml").read_text()
    for document in yaml.safe_load_all(text):
        api.post(CRDS, document)

    def is_served() -> bool:
        with suppress(ApiError):
            return "items" in api.get(ROUTES)
        return False

    until(is_served, "the kind is not served")


def route(backend: str) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
                    "backendRefs": [{"name": backend, "port": 80}],
                }
            ],
        },
    }


class Following:
    def __init__(self, updates: AsyncIterator[Update]) -> None:
        self._updates = updates
        self.http = HttpPicture()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Take updates until something holds."""
        while not is_so():
            update = await asyncio.wait_for(anext(self._updates), 90)
            if update.http is not None:
                self.http.take(update.http)

    def goes_to(self) -> str:
        table = self.http.tables.get("default/web:80")
        action = table.virtual_hosts[0].routes[0].action if table else None
        return action.clusters[0].name if isinstance(action, Forward) else ""


async def test_kind_comes_routes_change_and_kind_goes(
    api: Cluster, server: Path, checkout: Path
) -> None:
    source = KubernetesSource(Cluster.by_kubeconfig(server / "reader"), settle=0)
    updates = source.updates()
    first = await asyncio.wait_for(anext(updates), 60)
    assert first.complete, "without the kind it goes on"
    assert first.http is not None
    assert not first.http.tables
    assert {"web", "canary"} <= {service.name for service in first.services}
    seen = Following(updates)
    seen.http.take(first.http)

    put_kind(api, checkout)
    api.patch(
        namespaced("default", "httproutes", "web", group=GROUP), route("canary"), kind="apply"
    )
    await seen.until(lambda: seen.goes_to() == CANARY)
    (endpoint,) = seen.http.endpoints[CANARY].endpoints
    assert (str(endpoint.address), endpoint.port) == ("192.0.2.2", 8080)

    api.patch(namespaced("default", "httproutes", "web", group=GROUP), route("web"), kind="apply")
    await seen.until(lambda: seen.goes_to() == WEB)

    for name in ("httproutes", "gateways"):
        api.delete(f"{CRDS}/{name}.gateway.networking.k8s.io")
    await seen.until(lambda: not seen.http.tables)
    assert source.status.errors == {}


def test_of_the_gateway_api_the_role_reads_routes_and_no_more(api: Cluster, server: Path) -> None:
    reader = Cluster.by_kubeconfig(server / "reader")
    for path, verb in ((f"{GROUP}/gateways", "list"), ("/api/v1/secrets", "list")):
        with pytest.raises(ApiError, match=f"cannot {verb}") as caught:
            reader.get(path)
        assert caught.value.status == 403
    assert reader.get("/api/v1/services")["items"]
