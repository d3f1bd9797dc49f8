# SPDX-License-Identifier: Apache-2.0
"""Istio's `AuthorizationPolicy` (security.istio.io/v1), as its author wrote it.

Istiod tells of a policy what can be asked of connections, and that there is more. Here is the rest: what is
asked of requests. A policy for gateways is theirs to enforce: it is read, and guards nothing here.
Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/
"""

from __future__ import annotations

from dataclasses import replace

from runtime.model.policy import ROOT_NAMESPACE, Action, Labels, Match, Policy, PolicyScope
from runtime.source.fields import Field, FieldError
from runtime.source.kubernetes_service import labels_of, service_key
from runtime.source.policy_rule import check_fields, read_rule

_ACTIONS = ("ALLOW", "DENY", "AUDIT", "CUSTOM")
_DRY_RUN = "istio.io/dry-run"


class DryRunError(FieldError):
    """It is not to be told whether a policy is only tried; `policy` is what it says if it is not."""

    def __init__(self, reason: FieldError, policy: Policy) -> None:
        super().__init__(str(reason))
        self.policy = policy


def parse_authorization_policy(document: Field, *, name: str, namespace: str) -> Policy:
    """Read an AuthorizationPolicy.

    Raises:
        FieldError: a field is wrong, or says something that is not known here.
        DryRunError: nothing is, but for the annotation.
    """
    policy = _enforced(document, name=name, namespace=namespace)
    try:
        return replace(policy, dry_run=policy.dry_run or _is_dry_run(document))
    except FieldError as error:
        raise DryRunError(error, policy) from None


def in_doubt(
    document: Field, error: FieldError, *, name: str, namespace: str
) -> tuple[Policy, bool]:
    """What stands for a policy that cannot be read, so that it opens no door.

    Args:
        document: the policy.
        error: what is wrong with it.
        name: of the policy.
        namespace: of the policy.

    Returns:
        the policy: requests to whom it is for are the waypoint's, connections are refused; and whether it
        counts also before what an earlier version said. If whom it is for cannot be read: all of its namespace.
    """
    if isinstance(error, DryRunError):
        return error.policy, True
    spec = document.get("spec")
    try:
        policy = _bare(spec, name, namespace)
    except FieldError:
        policy = _bare(Field(None), name, namespace)
    told = spec.value.get("action") or "ALLOW" if isinstance(spec.value, dict) else ""
    return replace(
        policy,
        action=Action.ALLOW if told == "ALLOW" else Action.DENY,
        # What a policy of these actions asks denies no connection.
        groups=() if told in ("AUDIT", "CUSTOM") else (((Match(unreadable=("its rules",)),),),),
        rules=(),
        beyond=(f"it cannot be read: {error}",),
        dry_run=told == "AUDIT" or _is_surely_dry_run(document),
    ), False


def _enforced(document: Field, *, name: str, namespace: str) -> Policy:
    """A policy as it is where no annotation says that it is only tried."""
    spec = document.get("spec")
    check_fields(spec, "selector", "targetRef", "targetRefs", "rules", "action", "provider")
    action = spec.get("action").choice(*_ACTIONS, default="ALLOW")
    told = [
        read_rule(rule, name=f"ns[{namespace}]-policy[{name}]-rule[{index}]", namespace=namespace)
        for index, rule in enumerate(spec.get("rules").items())
    ]
    policy = _bare(spec, name, namespace)
    match action:
        case "AUDIT":
            return replace(policy, dry_run=True)
        case "CUSTOM":
            provider = spec.get("provider").get("name").name()
            return replace(policy, beyond=(f"action: CUSTOM, which {provider} decides",))
    return replace(
        policy,
        action=Action(action),
        groups=tuple(one.group for one in told),
        written=tuple(one.group for one in told),
        rules=tuple(one.rule for one in told),
        beyond=tuple(reason for one in told for reason in one.beyond),
    )


def _bare(spec: Field, name: str, namespace: str) -> Policy:
    """A policy that denies nothing, for whom it is meant."""
    labels = _labels(spec.get("selector"))
    refs = _refs(spec)
    services = tuple(key for ref in refs for key in _service(ref, namespace))
    scope = PolicyScope.WORKLOAD_SELECTOR
    if refs:
        if labels:
            raise spec.get("selector").error("stands beside targetRefs: one of them must go")
        scope = PolicyScope.SERVICE
    elif not labels:
        everywhere = namespace == ROOT_NAMESPACE
        scope = PolicyScope.GLOBAL if everywhere else PolicyScope.NAMESPACE
    return Policy(
        name=name,
        namespace=namespace,
        scope=scope,
        action=Action.DENY,
        rules=(),
        selector=labels,
        everywhere=bool(labels) and namespace == ROOT_NAMESPACE,
        services=services,
        gateways=len(services) < len(refs),
    )


def _labels(selector: Field) -> Labels:
    check_fields(selector, "matchLabels")
    return labels_of(selector.get("matchLabels"))


def _refs(spec: Field) -> list[Field]:
    """What a policy is attached to."""
    one = spec.get("targetRef")
    return [*([one] if one.given else []), *spec.get("targetRefs").items()]


def _service(ref: Field, namespace: str) -> tuple[str, ...]:
    check_fields(ref, "group", "kind", "name", "namespace")
    if ref.get("namespace").string(default=namespace) != namespace:
        raise ref.get("namespace").error("a policy is attached to what is in its own namespace")
    name = ref.get("name").name()
    if (ref.get("group").string(default=""), ref.get("kind").name()) != ("", "Service"):
        return ()  # gateways, waypoints and their classes enforce their own
    return (service_key(name, namespace),)


def _is_dry_run(document: Field) -> bool:
    """As Go's strconv.ParseBool reads it; what it does not read is refused."""
    field = document.get("metadata").get("annotations").label(_DRY_RUN)
    if not field.given:
        return False
    text = field.string()
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise field.error(f"must be true or false, not {text!r}")


def _is_surely_dry_run(document: Field) -> bool:
    try:
        return _is_dry_run(document)
    except FieldError:
        return False
