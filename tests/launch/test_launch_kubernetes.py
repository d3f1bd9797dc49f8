# SPDX-License-Identifier: Apache-2.0
"""A daemon that asks an API server: what it may not read of policies stands in the way of its readiness."""

from __future__ import annotations

import sys

import pytest

from tests.launch import api_server
from tests.launch.conftest import Node, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


def test_policies_that_may_not_be_read_are_a_reason_not_to_be_ready(node: Node) -> None:
    config, forbidden = node.path / "kubeconfig", node.path / "forbidden"
    config.write_text(api_server.kubeconfig())
    forbidden.touch()
    node.start([sys.executable, api_server.__file__, str(forbidden)])
    node.daemon(source="kubernetes", KUBECONFIG=str(config))
    until(
        lambda: "no right to list policies" in node.http("/debug/ready")[1],
        "the reason is not told",
    )
    status, why = node.http("/debug/ready")
    assert (status, "NOT GUARDED: AuthorizationPolicy" in why) == (503, True)
    assert node.ask("status")["sync"]["synced"]
    forbidden.unlink()
    until(lambda: node.http("/debug/ready")[0] == 200, "not ready with the right to read them")
