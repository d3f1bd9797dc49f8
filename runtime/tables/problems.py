# SPDX-License-Identifier: Apache-2.0
"""What could not be done, by resource; everything else goes on."""

from __future__ import annotations

from runtime.source.update import Rejection


class Problems:
    """Reasons by resource and topic: a resource can have one problem of each topic."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, str]] = {}

    def add(self, resource: str, topic: str, reason: str) -> None:
        self._found.setdefault(resource, {})[topic] = reason

    def clear(self, resource: str, topic: str) -> None:
        if resource in self._found:
            self._found[resource].pop(topic, None)
            if not self._found[resource]:
                del self._found[resource]

    def clear_all(self, resource: str, *, but: str | None = None) -> None:
        """Forget a resource's problems, except those whose topic begins with `but`."""
        for topic in list(self._found.get(resource, ())):
            if but is None or not topic.startswith(but):
                self.clear(resource, topic)

    def listed(self) -> tuple[Rejection, ...]:
        return tuple(
            Rejection(resource=resource, reason=reason)
            for resource, reasons in sorted(self._found.items())
            for _topic, reason in sorted(reasons.items())
        )
