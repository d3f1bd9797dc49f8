# SPDX-License-Identifier: Apache-2.0
"""Reading a message so that no field that is set goes by unseen.

Fields are asked for by name. What is set and was neither asked for nor said to be of no account is
told, by its name and in short what it says: also fields that are newer than this version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString
from google.protobuf.unknown_fields import UnknownFieldSet

_LONGEST = 60  # characters of a value that are told
_SHORT: dict[str, Callable[[Any], str]] = {
    "google.protobuf.Any": lambda value: str(value.type_url).rpartition("/")[2],
    "google.protobuf.Duration": lambda value: f"{seconds(value):g} s",
    "envoy.config.core.v3.HeaderValueOption": lambda value: str(value.header.key),
    "envoy.config.route.v3.RouteAction.RequestMirrorPolicy": lambda value: str(value.cluster),
    "envoy.config.core.v3.TypedExtensionConfig": lambda value: str(value.name),
}


class Fields:
    """A message and which of its fields were seen to.

    Args:
        message: any message of the protobuf runtime.
        where: stands before the names of fields that are told: "retry_policy.".
    """

    __slots__ = ("_message", "_set", "_where")

    def __init__(self, message: Any, where: str = "") -> None:
        self._message = message
        self._where = where
        self._set = {field.name: value for field, value in message.ListFields()}

    def has(self, name: str) -> bool:
        """Whether a field is set; it counts as seen only once it is taken."""
        return name in self._set

    def take(self, name: str) -> Any:
        """A field's value: its default where it is not set, None for a message that is not."""
        value = self._set.pop(name, None)
        if value is not None:
            return value
        value = getattr(self._message, name)
        return None if isinstance(value, Message) else value

    def wrapped(self, name: str, default: Any = None) -> Any:
        """The value within a wrapper (`UInt32Value` and its like); `default` where there is none."""
        value = self._set.pop(name, None)
        return default if value is None else value.value

    def ignore(self, *names: str) -> None:
        """Pass over fields that are understood, and make no difference here."""
        for name in names:
            self._set.pop(name, None)

    def rest(self) -> list[str]:
        """What was not seen to, in words."""
        unknown = UnknownFieldSet(self._message)
        if not (self._set or len(unknown)):
            return []
        told = [f"{self._where}{name}: {brief(value)}" for name, value in self._set.items()]
        numbers = {unknown[index].field_number for index in range(len(unknown))}
        kind = self._message.DESCRIPTOR.name
        told += [
            f"{self._where}field {number} of {kind}, which is not known here"
            for number in sorted(numbers)
        ]
        return told


def seconds(duration: Any) -> float:
    """A `Duration` in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def milliseconds(duration: Any) -> int:
    """A `Duration` in whole milliseconds, rounded up: what is not zero stays so."""
    return int(duration.seconds * 1000 - (-duration.nanos // 1_000_000))


def brief(value: Any) -> str:
    """A field's value in a few words, on one line."""
    if isinstance(value, Message):
        text = _brief_message(value)
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str | bytes | int | float):
        text = value if isinstance(value, str) and value.isprintable() else repr(value)
    elif hasattr(value, "items"):
        text = ", ".join(sorted(map(str, value)))
    else:
        text = ", ".join(brief(item) for item in value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _brief_message(value: Message) -> str:
    name = value.DESCRIPTOR.full_name
    if name in _SHORT:
        return _SHORT[name](value)
    fields = [field.name for field in value.DESCRIPTOR.fields]
    if fields == ["value"] and name.startswith("google.protobuf."):
        return brief(value.value)  # type: ignore[attr-defined]
    return MessageToString(value, as_one_line=True) or "set"
