# SPDX-License-Identifier: Apache-2.0
"""Matches and actions in words, for people who wrote them in YAML."""

from __future__ import annotations

import re

from runtime.model.http import (
    Action,
    DirectResponse,
    Forward,
    HeaderMatch,
    PathKind,
    PathMatch,
    Redirect,
    RouteMatch,
    TextKind,
    TextMatch,
)

_PATHS = {
    PathKind.EXACT: "path is {}",
    PathKind.PREFIX: "path begins with {}",
    PathKind.SEPARATED_PREFIX: "path is {0} or below {0}/",
    PathKind.REGEX: "path matches {}",
}
_TEXTS = {
    TextKind.EXACT: "is {}",
    TextKind.PREFIX: "begins with {}",
    TextKind.SUFFIX: "ends with {}",
    TextKind.CONTAINS: "contains {}",
    TextKind.REGEX: "matches {}",
    TextKind.PRESENT: "is there",
}
_NOT = {
    TextKind.EXACT: "is not {}",
    TextKind.PREFIX: "does not begin with {}",
    TextKind.SUFFIX: "does not end with {}",
    TextKind.CONTAINS: "does not contain {}",
    TextKind.REGEX: "does not match {}",
    TextKind.PRESENT: "is not there",
}
_NAMES = {":method": "method", ":authority": "host", ":scheme": "scheme", ":path": "path and query"}


def match_words(match: RouteMatch) -> str:
    """What a route asks of a request."""
    parts = [_header(each) for each in match.headers]
    parts += [f"query {each.name} {_text(each.text)}" for each in match.query]
    path = _path(match.path)
    if path or not parts:
        parts.insert(0, path or "everything")
    return ", ".join(parts)


def _path(path: PathMatch) -> str:
    if path.kind is PathKind.PREFIX and path.value in ("", "/"):
        return ""
    return _PATHS[path.kind].format(path.value) + (" (any case)" if path.ignore_case else "")


def _header(header: HeaderMatch) -> str:
    name = _NAMES.get(header.name, f"header {header.name}")
    empty = " (missing counts as empty)" if header.missing_as_empty else ""
    return f"{name} {_text(header.text, invert=header.invert)}{empty}"


def _text(text: TextMatch, *, invert: bool = False) -> str:
    value = text.value or '""'
    words = (_NOT if invert else _TEXTS)[text.kind].format(value)
    return words + (" (any case)" if text.ignore_case else "")


def action_words(action: Action) -> str:
    """What a route does."""
    match action:
        case Forward(clusters=()):
            return "nothing that is known here"
        case Forward(clusters=(only,)):
            return f"to {only.name}"
        case Forward(clusters=clusters):
            total = sum(each.weight for each in clusters)
            shares = (f"{100 * each.weight / total:g} % {each.name}" for each in clusters)
            return "to " + ", ".join(shares)
        case Redirect():
            return f"redirect {action.status} to {_target(action)}"
        case DirectResponse():
            return f"answer {action.status}"


def _target(redirect: Redirect) -> str:
    scheme = redirect.scheme or ("https" if redirect.https else "")
    host = redirect.host or ""
    port = f":{redirect.port}" if redirect.port else ""
    path = redirect.path or (f"{redirect.prefix}…" if redirect.prefix is not None else "")
    base = f"{scheme}://{host or '…'}" if scheme else host
    return f"{base}{port}{path}" or "the same"


# istio/istio pilot/pkg/security/authz/builder: policyName()
_ISTIO = re.compile(r"ns\[(.*?)\]-policy\[(.*?)\]-rule\[(\d+)\]")


def policy_words(name: str) -> tuple[str, int | None]:
    """The policy that an Envoy's is of, as its author knows it, and which rule of it, from 0 on."""
    found = _ISTIO.fullmatch(name)
    if found is None:
        return name, None
    namespace, policy, rule = found.groups()
    return f"{namespace}/{policy}", int(rule)
