# SPDX-License-Identifier: Apache-2.0
"""A daemon that is told by Istiod who may ask for what, and who is who: the gate refuses the others."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.launch.config import Config
from runtime.launch.instance import nameless
from runtime.source.envoy.messages import LISTENER, message_class, read, type_url
from runtime.source.istiod.proto.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.launch.conftest import Node, until
from tests.launch.pod import Pod
from tests.launch.test_launch_enhanced_waypoint import bookshop
from tests.launch.test_launch_netns import tell
from tests.source.envoy.wire import DATA, FILES, HCM, message
from tests.source.istiod.mesh_messages import workload
from tests.waypoint.bookstore import REVIEWS

__all__ = ["bookshop"]
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
# Who is in the namespace web may read, as Istio has Envoy ask for it.
RULES = """
rules {
  action: ALLOW
  policies {
    key: "ns[bookstore]-policy[readers]-rule[0]"
    value {
      permissions { header { name: ":method" string_match { exact: "GET" } } }
      principals { and_ids { ids { or_ids { ids {
        filter_state { key: "io.istio.peer_principal" string_match { safe_regex { regex: ".*/ns/web/.*" } } }
      } } } } }
    }
  }
}
"""
ASK = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 9080, timeout=20)
for method in ("GET", "POST"):
    connection.request(method, "/a", headers={"Host": "reviews", "x-user": "jason"})
    answer = connection.getresponse()
    answer.read()
    print(answer.status)
"""


def guarded() -> bytes:
    """What Istiod sent of listeners, with rules before the other filters of port 9080."""
    response = DiscoveryResponse.FromString((DATA / FILES[LISTENER]).read_bytes())
    for resource in response.resources:
        wire = read(LISTENER, resource.value)
        if wire.name == "0.0.0.0_9080":
            for chain in wire.filter_chains:
                for each in chain.filters:
                    _guard(each)
            resource.value = wire.SerializeToString()
    return bytes(response.SerializeToString())


def _guard(network_filter: Any) -> None:
    config = network_filter.typed_config
    if config.type_url != type_url(HCM):
        return
    manager = message_class(HCM).FromString(config.value)
    others = list(manager.http_filters)
    del manager.http_filters[:]
    added = manager.http_filters.add(name="rbac")
    added.typed_config.type_url = type_url(RBAC)
    added.typed_config.value = message(RBAC, RULES).SerializeToString()
    manager.http_filters.extend(others)
    config.value = manager.SerializeToString()


def at_the_pod(namespace: str) -> bytes:
    """The workload that has the pod's address, as Istiod tells it."""
    made = workload("client", Pod.address, node="node1", service_account="front")
    made.workload.namespace = namespace
    response = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE)
    resource = response.resources.add(name=made.workload.uid)
    resource.resource.type_url = ADDRESS_TYPE
    resource.resource.value = made.SerializeToString()
    return bytes(response.SerializeToString())


@pytest.fixture
def pod(bookshop: Node) -> Iterator[Pod]:
    (bookshop.services / "delta-Authorization.pb").unlink()
    put(bookshop, "ads-Listener.pb", guarded())
    put(bookshop, "delta-Client.pb", at_the_pod("web"))
    with ExitStack() as stack:
        yield Pod(bookshop, stack)


def put(node: Node, name: str, content: bytes) -> None:
    draft = node.services / f".{name}"
    draft.write_bytes(content)
    draft.replace(node.services / name)


def start(node: Node, pod: Pod, *arguments: str) -> None:
    node.daemon("--mode", "enhanced", *arguments).wait_ready()
    tell(node, "/enroll", netns=str(pod.path))


def statuses(pod: Pod) -> list[str]:
    """Of reading and of writing."""
    return pod.call([sys.executable, "-c", ASK, REVIEWS]).split()


def checked(node: Node, namespace: str, method: str) -> Any:
    words = ("--service", "bookstore/reviews", "--port", "9080", "--namespace", namespace)
    told = node.kmeshctl("authz", "check", *words, "--output", "json", "--", method, "/a")
    return json.loads(told)["http"]


def test_who_may_is_as_istiod_says_and_changes_with_it(bookshop: Node, pod: Pod) -> None:
    start(bookshop, pod, "--node", "node1")
    until(lambda: statuses(pod) == ["200", "403"], f"not so, but {statuses(pod)}")
    put(bookshop, "delta-Client.pb", at_the_pod("bank"))
    until(lambda: statuses(pod) == ["403", "403"], "who is another keeps the old rights")
    put(bookshop, "delta-Client.pb", at_the_pod("web"))
    until(lambda: statuses(pod) == ["200", "403"], "the rights do not come back")
    (bookshop.services / "delta-Client.pb").unlink()
    until(lambda: statuses(pod) == ["403", "403"], "who is nobody keeps the old rights")
    for namespace, method, allowed in (("web", "GET", True), ("web", "POST", False), ("bank", "GET", False)):  # fmt: skip
        answer = checked(bookshop, namespace, method)
        assert (answer["allowed"], answer["by"]) == (allowed, "gate")
    where = ("--service", "bookstore/reviews", "--port", "9080", "-H", "x-user: jason")
    told = bookshop.kmeshctl("explain", *where, "--", "GET", "/a")
    assert "by client: identity like .*/ns/web/.*: allowed by bookstore/readers, rule 0" in told


def test_where_nobody_knows_who_is_who_it_is_the_waypoints_and_says_so(
    bookshop: Node, pod: Pod
) -> None:
    start(bookshop, pod, "--node", "")
    assert statuses(pod) == ["503", "503"]
    assert "this node's name is not known (--node)" in bookshop.kmeshctl("routes")
    assert checked(bookshop, "web", "GET")["by"] == "waypoint"


def test_a_node_that_does_not_know_its_own_workloads_says_why(tmp_path: Path) -> None:
    config = Config(
        mode="auto", source="istiod", run_dir=tmp_path, pins=tmp_path,
        status_address="", metrics_address="", node="n1",
    )  # fmt: skip
    assert nameless(config) == ""
    assert "--node" in nameless(replace(config, node=""))
    assert "--on-demand" in nameless(replace(config, on_demand=True))
    assert "source kubernetes" in nameless(replace(config, source="kubernetes"))
