# SPDX-License-Identifier: Apache-2.0
"""Policies on requests, at the connections by which these come, where the word of clients' nodes is taken.

Who is let in by some request may connect: which of its requests pass, its own node has judged. Without that
word nobody may, as what a connection will carry cannot be known when it is made.
"""

from __future__ import annotations

from dataclasses import replace

from runtime.model.policy import Action, Group, Match, Policy, StringKind, StringMatch

_OF_THE_MESH = (Match(principals=(StringMatch(StringKind.PRESENCE),)),)


def opened(policy: Policy) -> Policy:
    """A policy that lets in, of workloads of the mesh, whom some of its rules on requests may let in.

    It changes only ALLOW policies whose rules are known whole: no other can be taken to have been judged.
    """
    judged = policy.rules is not None and not policy.beyond and policy.judges_requests
    if policy.action is not Action.ALLOW or not judged:
        return policy
    more = tuple(map(_opened, filter(_asks_request, policy.written)))
    return replace(policy, groups=(*policy.groups, *more))


def lets_nobody_connect(policy: Policy) -> bool:
    """Some of its rules may let requests in, and none of these lets a connection in."""
    is_opened = any(_OF_THE_MESH in group for group in policy.groups)
    return policy.action is Action.ALLOW and policy.needs_http and not is_opened


def _asks_request(group: Group) -> bool:
    return any(match.empty for rule in group for match in rule)


def _opened(group: Group) -> Group:
    """What a rule asks of connections, without what it asks of requests."""
    kept = tuple(rule for rule in group if rule and not any(match.empty for match in rule))
    return (*kept, _OF_THE_MESH)
