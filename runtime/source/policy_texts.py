# SPDX-License-Identifier: Apache-2.0
"""What an AuthorizationPolicy writes as a text with a star, as conditions on requests and on clients.

"*" stands for anything that is there, "x*" for what begins so, "*x" for what ends so. Where there are
many texts, one expression says them all: a policy's lists are multiplied with each other.
Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.model.http_rules import (
    AnyOf,
    Anything,
    Condition,
    HeaderMatch,
    PathIs,
    PrincipalIs,
    TextKind,
    TextMatch,
)
from runtime.model.policy import StringKind, StringMatch
from runtime.source.fields import Field

_SCHEME = "spiffe://"
_MANY = 3
_TEMPLATES = re.compile(r"\{\*\*?\}")


def text_of(value: str) -> TextMatch:
    """A text as it is compared."""
    if value == "*":
        return TextMatch(TextKind.PRESENT)
    if value.startswith("*"):
        return TextMatch(TextKind.SUFFIX, value[1:])
    if value.endswith("*"):
        return TextMatch(TextKind.PREFIX, value[:-1])
    return TextMatch(TextKind.EXACT, value)


def string_match(value: str) -> StringMatch:
    """The same for policies on connections."""
    text = text_of(value)
    kinds = {
        TextKind.PRESENT: StringKind.PRESENCE,
        TextKind.SUFFIX: StringKind.SUFFIX,
        TextKind.PREFIX: StringKind.PREFIX,
        TextKind.EXACT: StringKind.EXACT,
    }
    return StringMatch(kinds[text.kind], text.value)


def either(conditions: Sequence[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else AnyOf(tuple(conditions))


def methods(values: Sequence[str]) -> Condition:
    return header(":method", values)


def hosts(values: Sequence[str]) -> Condition:
    """Hosts have no case."""
    found = (text_of(value) for value in values)
    return either(
        [
            HeaderMatch(
                ":authority", TextMatch(text.kind, text.value, ignore_case=bool(text.value))
            )
            for text in found
        ]
    )


def header(name: str, values: Sequence[str]) -> Condition:
    """Whether a header's value is one of these; a missing one is none."""
    return either([HeaderMatch(name, text) for text in _fewer([text_of(one) for one in values])])


def paths(fields: Sequence[Field]) -> Condition:
    """Whether the path without its query is one of these.

    Raises:
        FieldError: a template is none.
    """
    texts = [_path(field) for field in fields]
    if any(text.kind is TextKind.PRESENT for text in texts):
        return Anything()  # there is always a path
    return either([PathIs(text) for text in _fewer(texts)])


def _path(field: Field) -> TextMatch:
    value = field.name()
    if "{" not in value and "}" not in value:
        return text_of(value)
    rest = _TEMPLATES.sub("", value)
    if "*" in rest or "{" in rest or "}" in rest or not value.startswith("/"):
        raise field.error(f"must be a path with {{*}} and {{**}} for parts of it, not {value!r}")
    if "{**}" in value and _TEMPLATES.search(value, value.index("{**}") + 4):
        raise field.error("{**} must be the last of the braces")
    _check_segments(field, value)
    parts = re.split(r"(\{\*\*?\})", value)
    said = {"{*}": "[^/]+", "{**}": ".*"}
    return TextMatch(TextKind.REGEX, "".join(said.get(part) or re.escape(part) for part in parts))


def _check_segments(field: Field, value: str) -> None:
    """Braces stand for whole segments; a text may follow the last of them."""
    segments = value[1:].split("/")
    for index, segment in enumerate(segments):
        inner = _TEMPLATES.sub("", segment, count=1)
        begins = segment.startswith("{") or "{" not in segment
        if not begins or "{" in inner or (inner != segment and inner and index + 1 < len(segments)):
            raise field.error(f"{{*}} and {{**}} stand for whole segments, not in {segment!r}")


def principals(values: Sequence[str]) -> Condition:
    """Whether the client's identity is one of these."""
    texts = _fewer([_principal(value) for value in values])
    return either([PrincipalIs(text) for text in texts])


def _principal(value: str) -> TextMatch:
    text = text_of(value)
    match text.kind:
        case TextKind.PRESENT:
            return TextMatch(TextKind.PREFIX, _SCHEME)
        case TextKind.SUFFIX:
            return TextMatch(TextKind.REGEX, f"{_SCHEME}.*{re.escape(text.value)}")
        case _:
            return TextMatch(text.kind, _SCHEME + text.value)


def namespaces(values: Sequence[str]) -> Condition:
    """Whether the client's namespace is one of these: a part of its identity."""
    texts = [TextMatch(TextKind.REGEX, f".*/ns/{_starred(value)}/.*") for value in values]
    return either([PrincipalIs(text) for text in _fewer(texts)])


def service_accounts(accounts: Sequence[tuple[str, str]]) -> Condition:
    """Whether the client has one of these (namespace, name) service accounts."""
    texts = [
        TextMatch(TextKind.REGEX, f"{_SCHEME}.+/ns/{re.escape(where)}/sa/{re.escape(name)}")
        for where, name in accounts
    ]
    return either([PrincipalIs(text) for text in _fewer(texts)])


def _starred(value: str) -> str:
    return ".*".join(map(re.escape, value.split("*")))


def _fewer(texts: list[TextMatch]) -> list[TextMatch]:
    """The same in one text, where there are many."""
    if len(texts) <= _MANY or any(text.kind is TextKind.PRESENT for text in texts):
        return texts
    return [TextMatch(TextKind.REGEX, "|".join(f"({_expression(text)})" for text in texts))]


def _expression(text: TextMatch) -> str:
    match text.kind:
        case TextKind.REGEX:
            return text.value
        case TextKind.PREFIX:
            return f"{re.escape(text.value)}.*"
        case TextKind.SUFFIX:
            return f".*{re.escape(text.value)}"
        case _:
            return re.escape(text.value)
