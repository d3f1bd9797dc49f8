# SPDX-License-Identifier: Apache-2.0
"""Policies as Istiod tells them, and as their authors wrote them, made one.

Istiod knows whom a policy guards and what it asks of connections; the object itself says what it asks of
requests. Where both are there, the one is completed by the other; an object that Istiod does not tell
of counts by itself where there is no Istiod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runtime.model.policy import Policy


class PolicyPicture:
    """All policies there are.

    Args:
        alone: objects count also where nobody else tells of their policy.

    Attributes:
        policies: those in force, by key.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._told: dict[str, Policy] = {}
        self._written: dict[str, Policy] = {}
        self.policies: dict[str, Policy] = {}

    @property
    def written(self) -> Mapping[str, Policy]:
        """The objects, by key."""
        return self._written

    def tell(self, key: str, policy: Policy | None) -> dict[str, Policy | None]:
        """Take what Istiod tells of a policy, or that it is gone; returns what changed."""
        return self._put(self._told, key, policy)

    def write(self, key: str, policy: Policy | None) -> dict[str, Policy | None]:
        """Take an object, or that it is gone; returns what changed."""
        return self._put(self._written, key, policy)

    def forget_told(self) -> None:
        """Istiod tells the whole picture anew."""
        self._told.clear()
        self.policies = dict(self._written) if self._alone else {}

    def _put(
        self, where: dict[str, Policy], key: str, policy: Policy | None
    ) -> dict[str, Policy | None]:
        if policy is None:
            where.pop(key, None)
        else:
            where[key] = policy
        before, now = self.policies.pop(key, None), self._of(key)
        if now is not None:
            self.policies[key] = now
        return {key: now} if now != before else {}

    def _of(self, key: str) -> Policy | None:
        told, written = self._told.get(key), self._written.get(key)
        if told is None:
            return written if self._alone else None
        return told if written is None else completed(told, written)


def completed(told: Policy, written: Policy) -> Policy:
    """A policy of Istiod's with the rules of its object; as it was where the two are not the same yet."""
    if (told.action, told.dry_run) != (written.action, written.dry_run):
        return told
    return replace(told, rules=written.rules, beyond=written.beyond, written=written.written)
