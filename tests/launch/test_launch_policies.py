# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicies with conditions on requests, from files: decided on the way, without a waypoint and without routes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.dataplane.world import Agent
from tests.launch.conftest import BACKENDS, Node, until
from tests.launch.pod import OUTSIDE, REFUSED, SERVER, Pod
from tests.launch.test_launch_enhanced import GREEN_VIP, Mesh, mesh
from tests.launch.test_launch_netns import tell

__all__ = ["mesh"]
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

HEAD = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
NO_WRITES = HEAD + (
    "metadata: {name: no-writes}\nspec:\n  action: DENY\n"
    "  rules: [{to: [{operation: {methods: [POST, PUT], notPaths: [/inbox/*]}}]}]\n"
)
READERS = HEAD + (
    "metadata: {name: readers}\nspec:\n"
    "  targetRefs: [{kind: Service, group: '', name: green}]\n"
    "  rules: [{to: [{operation: {methods: [GET], paths: ['/books/{*}']}}]}]\n"
)


def asked(client: Agent, vip: str, target: str, method: str = "GET") -> int:
    status: int = client("try", vip, target, method)[0]
    return status


def test_policies_decide_requests_to_services_with_and_without_routes(mesh: Mesh) -> None:
    client, node = mesh.client(), mesh.node
    assert asked(client, GREEN_VIP, "/a", "POST") == 501
    node.write(NO_WRITES, "policy.yaml")
    for vip in ("10.96.0.10", GREEN_VIP):
        until(lambda at=vip: asked(client, at, "/a", "POST") == 403, "no policy holds")  # type: ignore[misc]
        found = [
            asked(client, vip, target, method)
            for target in ("/a", "/inbox/1")
            for method in ("GET", "POST", "PUT")
        ]
        assert found == [200, 403, 403, 200, 501, 501], vip
        assert asked(client, vip, "/inbox/../a", "POST") == 403
    node.write(NO_WRITES.replace("to:", "towards:"), "policy.yaml")
    until(lambda: "towards: not known here" in node.kmeshctl("status"), "it is not told")
    assert asked(client, GREEN_VIP, "/a", "POST") == 403
    node.write(NO_WRITES + READERS, "policy.yaml")
    until(lambda: asked(client, GREEN_VIP, "/a") == 403, "who is not allowed still may")
    assert asked(client, GREEN_VIP, "/books/1") == 200
    assert asked(client, GREEN_VIP, "/books/1/pages") == 403
    assert asked(client, "10.96.0.10", "/a") == 200
    of_green = ("--service", "default/green")
    told = node.kmeshctl("explain", "--service", "default/web", "--", "POST", "/books/1")
    assert "denied by default/no-writes, rule 0" in told
    told = node.kmeshctl("authz", "check", *of_green, "--", "GET", "/books/1")
    assert "allowed by default/readers, rule 0" in told
    assert told.endswith("allowed\n")
    rows = node.ask("routes", *of_green)["routes"]
    assert [(row["place"], row["policies"]) for row in rows] == [
        ("kernel", ["default/no-writes", "default/readers"])
    ]
    by_name = {one["name"]: one["decided"] for one in node.ask("policies")["policies"]}
    assert by_name == {"no-writes": "gate", "readers": "gate"}
    (node.services / "policy.yaml").unlink()
    until(lambda: asked(client, GREEN_VIP, "/a", "POST") == 501, "a policy that is gone holds")


# The client is a pod with a name; the endpoint's node judges connections, and is the same.
NAMED = f"""---
apiVersion: v1
kind: Service
metadata: {{name: client}}
spec: {{clusterIP: 10.96.0.20, selector: {{app: client}}, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: client-1, labels: {{kubernetes.io/service-name: client}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints: [{{addresses: [{Pod.address}], nodeName: n1, targetRef: {{kind: Pod, name: client}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{serviceAccountName: front}}
"""
GREEN_READERS = HEAD + (
    "metadata: {name: read}\nspec:\n  targetRefs: []\n"
    "  rules: [{from: [{source: {serviceAccounts: [front]}}], to: [{operation: {methods: [GET]}}]}]\n"
)
STATUSES = """
import http.client, sys
for method in ("GET", "POST"):
    connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=20)
    connection.request(method, "/a")
    print(connection.getresponse().status)
"""


def test_who_is_allowed_by_request_gets_in_at_an_endpoint_that_is_guarded(mesh: Mesh) -> None:
    node = mesh.node
    mesh.daemon.terminate()
    with ExitStack() as stack:
        pod = Pod(node, stack)
        node.write(NAMED, "client.yaml")
        node.write(GREEN_READERS, "policy.yaml")
        daemon = mesh.start("--no-exempt-node", "--node", "n1", "--http-policies", "clients")
        mesh.client()  # so the namespace of the endpoints is guarded
        tell(node, "/enroll", netns=str(pod.path))

        def statuses() -> list[str]:
            return pod.call([sys.executable, "-c", STATUSES, GREEN_VIP]).split()

        until(lambda: statuses() == ["200", "403"], f"not so, but {statuses()}")
        daemon.terminate()


# A pod that the daemon guards, and a workload of the mesh in the node's namespace.
GUARDED = f"""---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: 10.96.0.10, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
- {{addresses: [{Pod.address}], targetRef: {{kind: Pod, name: guarded}}}}
- {{addresses: [{BACKENDS["blue"]}], targetRef: {{kind: Pod, name: client}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: guarded, labels: {{app: web}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, labels: {{app: client}}}}
spec: {{serviceAccountName: front}}
"""
READ_ALONE = HEAD + (
    "metadata: {name: read}\nspec:\n  selector: {matchLabels: {app: web}}\n"
    "  rules: [{to: [{operation: {methods: [GET]}}]}]\n"
)


@pytest.mark.parametrize("word", ["strict", "clients"])
def test_who_may_connect_where_requests_are_judged_elsewhere(node: Node, word: str) -> None:
    with ExitStack() as stack:
        pod = Pod(node, stack)
        serving = subprocess.Popen(
            pod.inside([sys.executable, "-c", SERVER, Pod.address]),
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(serving.wait)
        stack.callback(serving.kill)
        assert serving.stdout
        assert serving.stdout.readline() == "up\n"
        node.write(GUARDED)
        node.daemon("--no-exempt-node", "--mode", "compat", "--http-policies", word).wait_ready()
        tell(node, "/enroll", netns=str(pod.path))
        assert pod.reached(OUTSIDE) == pod.reached(BACKENDS["blue"]) == "open"
        node.write(READ_ALONE, "policy.yaml")
        until(lambda: pod.reached(OUTSIDE) == REFUSED, "anyone may connect")
        assert pod.reached(BACKENDS["blue"]) == ("open" if word == "clients" else REFUSED)
