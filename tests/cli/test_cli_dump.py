# SPDX-License-Identifier: Apache-2.0
"""`kmeshctl dump` and /debug/config_dump of a real daemon: whole, stable, without secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.launch.conftest import Node

pytestmark = pytest.mark.root

SECRET = """
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: do-not-tell-anyone}
"""


def resources(dump: Any) -> Any:
    return {kind: dump[kind] for kind in ("services", "workloads", "policies")}


def test_it_holds_every_field_and_where_it_is_from(node: Node) -> None:
    node.daemon().wait_ready()
    dump = json.loads(node.kmeshctl("dump"))
    assert dump["schema_version"] == 1
    (service,) = dump["services"]
    assert service["resource"] == "default/web.default.svc.cluster.local"
    assert service["from"] == f"{node.services}/web.yaml"
    assert service["addresses"] == [{"address": node.vip, "network": ""}]
    assert service["load_balancing"]["health_policy"] == "ONLY_HEALTHY"
    assert {one["from"] for one in dump["workloads"]} == {f"{node.services}/web.yaml"}
    assert {one["capacity"] for one in dump["workloads"]} == {1}
    assert dump["policies"] == []
    assert dump["status"]["sync"]["source"] == f"files:{node.services}"


def test_it_is_the_same_over_http_and_every_time(node: Node) -> None:
    node.daemon().wait_ready()
    dump = json.loads(node.kmeshctl("dump"))
    over_http = json.loads(node.http("/debug/config_dump")[1])
    assert list(over_http) == list(dump)
    assert json.dumps(resources(over_http)) == json.dumps(resources(dump))
    for kind, listed in resources(dump).items():
        assert json.loads(node.http(f"/debug/config_dump/{kind}")[1]) == listed


def test_where_a_resource_is_from_follows_its_file(node: Node) -> None:
    node.daemon().wait_ready()
    node.write(node.endpoints("blue"), "slice.yaml")
    node.write(node.service())
    node.until(lambda: len(node.ask("workloads")) == 1, "change not seen")
    dump = json.loads(node.kmeshctl("dump"))
    assert [one["from"] for one in dump["services"]] == [f"{node.services}/web.yaml"]
    assert [one["from"] for one in dump["workloads"]] == [f"{node.services}/slice.yaml"]


def test_it_tells_no_secrets(node: Node) -> None:
    node.write(node.service() + node.endpoints("blue") + SECRET)
    node.daemon(KMESH_TEST_TOKEN="a-token-of-mine").wait_ready()
    for text in (node.kmeshctl("dump"), node.http("/debug/config_dump")[1]):
        assert "do-not-tell-anyone" not in text
        assert "a-token-of-mine" not in text
