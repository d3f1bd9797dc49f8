# SPDX-License-Identifier: Apache-2.0
"""Whom a policy on requests lets connect, where the word of clients' nodes is taken: nobody else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.model.policy import Connection, Identity, Policy, decide
from runtime.model.policy_opened import opened
from runtime.source.authorization_policy import parse_authorization_policy
from runtime.source.fields import Field

GET: Any = {"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]}
WEB: Any = {"from": [{"source": {"namespaces": ["web"]}}]}
FRONT = Identity("cluster.local", "web", "front")
TELLER = Identity("cluster.local", "bank", "teller")


def read(*rules: Any, action: str = "ALLOW") -> Policy:
    document = {"spec": {"action": action, "rules": list(rules)}}
    return parse_authorization_policy(Field(document), name="p", namespace="shop")


def may(policy: Policy, who: Identity | None) -> bool:
    source, target = ip_address("10.0.0.9"), ip_address("10.0.0.1")
    connection = Connection(source=source, destination=target, destination_port=80, identity=who)
    return decide([policy], connection).allowed


@pytest.mark.parametrize(
    ("rules", "before", "after"),
    [
        ([GET], (False, False, False), (True, True, False)),
        ([GET | WEB], (False, False, False), (True, False, False)),
        ([GET, WEB], (True, False, False), (True, True, False)),
        ([{"when": [{"key": "request.headers[x]", "values": ["1"]}]}], (False,) * 3, (True, True, False)),
        ([WEB], (True, False, False), (True, False, False)),
        ([], (False, False, False), (False, False, False)),
        ([{}, GET], (True, True, True), (True, True, True)),
    ],
)  # fmt: skip
def test_who_may_connect(
    rules: list[Any], before: tuple[bool, ...], after: tuple[bool, ...]
) -> None:
    policy = read(*rules)
    everyone = (FRONT, TELLER, None)
    assert tuple(may(policy, who) for who in everyone) == before
    assert tuple(may(opened(policy), who) for who in everyone) == after


def test_what_is_not_judged_elsewhere_is_not_opened() -> None:
    policy = read(GET)
    unknown = read({"from": [{"source": {"requestPrincipals": ["*"]}}]})
    for one in (unknown, replace(policy, rules=None), read(GET, action="DENY")):
        assert opened(one) == one
