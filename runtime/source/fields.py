# SPDX-License-Identifier: Apache-2.0
"""Reading fields of a document that people write: each error names the field and what it should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from runtime.model.mesh import IPAddress


class FieldError(ValueError):
    """A field that cannot be accepted; the message begins with its path."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value in a document and the way to it; a field that is not there has the value None."""

    value: Any
    path: str = ""

    def error(self, reason: str) -> FieldError:
        return FieldError(f"{self.path}: {reason}" if self.path else reason)

    def _wrong(self, wanted: str) -> FieldError:
        if self.value is None:
            return self.error(f"missing, must be {wanted}")
        return self.error(f"must be {wanted}, not {_show(self.value)}")

    @property
    def given(self) -> bool:
        return self.value is not None

    def get(self, name: str) -> Field:
        """A member of this mapping; of a mapping that is not there, nothing is there."""
        path = f"{self.path}.{name}" if self.path else name
        if self.value is None:
            return Field(None, path)
        if not isinstance(self.value, dict):
            raise self._wrong("a mapping")
        return Field(self.value.get(name), path)

    def label(self, name: str) -> Field:
        """A member whose name holds dots."""
        return Field(self.get(name).value, f'{self.path}["{name}"]')

    def items(self) -> Iterator[Field]:
        """The members of this list; none when it is not there."""
        if self.value is None:
            return
        if not isinstance(self.value, list):
            raise self._wrong("a list")
        for index, item in enumerate(self.value):
            yield Field(item, f"{self.path}[{index}]")

    def string(self, *, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if isinstance(self.value, (bool, int, float)):
            raise self.error(f"must be a string, not {_show(self.value)}: put it in quotes")
        if not isinstance(self.value, str):
            raise self._wrong("a string")
        return self.value

    def name(self) -> str:
        """A string that is not empty."""
        text = self.string()
        if not text:
            raise self.error("must not be empty")
        return text

    def integer(self, *, low: int, high: int) -> int:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(f"a number from {low} to {high}")
        return value

    def boolean(self, *, default: bool) -> bool:
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            raise self._wrong("true or false")
        return self.value

    def choice(self, *allowed: str, default: str | None = None) -> str:
        text = self.string(default=default)
        if text not in allowed:
            raise self._wrong(" or ".join(allowed))
        return text

    def address(self) -> IPAddress:
        """An IPv4 or IPv6 address that a connection can have as its destination."""
        text = self.string()
        try:
            address = ip_address(text)
        except ValueError:
            raise self._wrong("an IPv4 or IPv6 address") from None
        if address.is_multicast or address.is_unspecified or "%" in text:
            raise self._wrong("an address that can be connected to")
        return address


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
