# SPDX-License-Identifier: Apache-2.0
"""Policies as their authors know them: Istio gives Envoy a policy for each rule of an AuthorizationPolicy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runtime.tables.http_authorization import Decision

# istio/istio pilot/pkg/security/authz/builder: policyName()
_ISTIO = re.compile(r"ns\[(.*?)\]-policy\[(.*?)\]-rule\[(\d+)\]")


def policy_name(name: str) -> Mapping[str, Any]:
    """A policy of Envoy's: its `name` there, the `policy` that it is of, and which `rule`, from 0 on."""
    found = _ISTIO.fullmatch(name)
    if found is None:
        return {"name": name, "policy": name, "rule": None}
    namespace, policy, rule = found.groups()
    return {"name": name, "policy": f"{namespace}/{policy}", "rule": int(rule)}


def named(decision: Decision) -> Mapping[str, Any]:
    """A decision with the names of the policies that made it, ready for JSON."""
    policies = [policy_name(one) for one in decision.policies]
    words = ", ".join(map(_words, policies))
    if decision.allowed:
        meaning = f"allowed by {words}" if words else "allowed: no policy denies it"
    else:
        meaning = f"denied by {words}" if words else "denied: no policy allows it"
    return {"allowed": decision.allowed, "policies": policies, "meaning": meaning}


def _words(policy: Mapping[str, Any]) -> str:
    rule = "" if policy["rule"] is None else f", rule {policy['rule']}"
    return f"{policy['policy']}{rule}"
