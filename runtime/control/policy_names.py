# SPDX-License-Identifier: Apache-2.0
"""Policies as their authors know them: Istio gives Envoy a policy for each rule of an AuthorizationPolicy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.model.http import PrincipalIs, SourceIn, TextKind
from runtime.plan.words import policy_words
from runtime.tables.http_authorization import Decision, Sender
from runtime.tables.http_clients import Ruling, Verdict


def policy_name(name: str) -> Mapping[str, Any]:
    """A policy of Envoy's: its `name` there, the `policy` that it is of, and which `rule`, from 0 on."""
    policy, rule = policy_words(name)
    return {"name": name, "policy": policy, "rule": rule}


def named(ruling: Ruling) -> Mapping[str, Any]:
    """A ruling with the names of the policies that made it, ready for JSON.

    `allowed` is None where it depends on the client.
    """
    if isinstance(ruling, Decision):
        return _decided(ruling)
    names = (name for one in ruling.verdicts for name in one.decision.policies)
    return {
        "allowed": ruling.allowed,
        "policies": [policy_name(one) for one in dict.fromkeys(names)],
        "meaning": "by client: " + "; ".join(map(_verdict, ruling.verdicts)),
    }


def _verdict(verdict: Verdict) -> str:
    meaning = _decided(verdict.decision)["meaning"]
    who = " and ".join(map(_sender, verdict.senders))
    return f"{who}: {meaning}" if who else f"else {meaning}"


def _sender(sender: Sender) -> str:
    match sender.condition:
        case SourceIn(block):
            words = f"in {block}"
        case PrincipalIs(text) if text.kind is TextKind.PRESENT:
            words = "with an identity"
        case PrincipalIs(text):
            words = f"identity {_KINDS[text.kind]}{text.value}"
    return words if sender.wanted else f"not {words}"


_KINDS = {
    TextKind.EXACT: "",
    TextKind.PREFIX: "beginning with ",
    TextKind.SUFFIX: "ending with ",
    TextKind.CONTAINS: "with ",
    TextKind.REGEX: "like ",
}


def _decided(decision: Decision) -> Mapping[str, Any]:
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
