# SPDX-License-Identifier: Apache-2.0
"""Authorization policies: from the source's updates into the kernel, and what is known of each.

The kernel's part is loaded when the first policy guards a workload of this node, so a mesh without
policies pays nothing. What cannot be enforced is told by name, on status and in the log.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from runtime import log
from runtime.bpf.lib import BpfError
from runtime.errors import KmeshError
from runtime.kernel.apply import ApplyError
from runtime.kernel.authorize import Hits
from runtime.model.mesh import IPAddress
from runtime.model.policy import Policy
from runtime.model.policy_opened import lets_nobody_connect
from runtime.source.update import Update
from runtime.tables.ops import Op
from runtime.tables.place import Place
from runtime.tables.policies import Contents, PolicyTables
from runtime.ui import count

_LOOK_SECONDS = 2.0  # between looks at this node's addresses

_log = log.get("authorization")


class Kernel(Protocol):
    """What carries policies out."""

    def apply(self, ops: Sequence[Op]) -> object: ...
    def contents(self) -> Contents: ...
    def hits(self) -> list[Hits]: ...
    def guard_netns(self, path: Path) -> object: ...
    def release_inode(self, inode: int) -> object: ...
    def release_all(self) -> object: ...
    def close(self) -> object: ...
    def destroy(self) -> object: ...


class Authorization:
    """Policies, from the first to the last. Not thread-safe: its caller holds the data path's lock.

    Args:
        open_kernel: loads the kernel's part.
        adopt: there is one from an earlier process: take it over at once.
        place: this node.
        namespaces: the network namespaces that are guarded while there are policies.
        own_addresses: this node's own, from which health checks come.

    Attributes:
        requests_are_judged: this node decides also what policies ask of requests.
    """

    def __init__(
        self,
        open_kernel: Callable[[], Kernel],
        *,
        adopt: bool,
        place: Place,
        namespaces: Callable[[], Iterable[Path]],
        own_addresses: Callable[[], Iterable[IPAddress]] = tuple,
    ) -> None:
        self.requests_are_judged = False
        self._open = open_kernel
        self._namespaces = namespaces
        self._own_addresses = own_addresses
        self._looked_at = -_LOOK_SECONDS
        self._fault = ""
        self._unguarded = ""
        self._guarded = (0, 0)  # of how many namespaces
        self._kernel = self._adopt() if adopt else None
        existing = self._kernel.contents() if self._kernel else None
        self._tables = PolicyTables(place=place, existing=existing)
        self._behind = bool(self._fault)
        self._names: dict[int, list[str]] = {}
        self._past: Counter[str] = Counter()  # hits of sets that are gone
        self._failed: dict[str, str] = {}
        self._disabled_since = ""  # RFC 3339; "" while policies are enforced

    def _adopt(self) -> Kernel | None:
        """What cannot be taken over guards on as it is, until another attempt."""
        try:
            return self._open()
        except (KmeshError, OSError) as error:
            self._report(f"policies of before guard on, and cannot be changed: {error}")
            return None

    def _report(self, fault: str) -> None:
        if fault and fault != self._fault:
            _log.error("%s", fault)
        self._fault = fault

    def relocate(self, place: Place) -> None:
        """This node turns out to be elsewhere; the next `program` brings the kernel there."""
        self._tables.relocate(place)

    def program(self, update: Update) -> Mapping[str, str]:
        """Bring an update, and what failed before, into the kernel.

        Returns:
            why each resource that failed did.
        """
        self._look_for_addresses()
        ops: Sequence[Op] = self._tables.apply(update)
        try:
            if ops or self._behind:
                self._apply(ops)
            self._behind = False
            refused = {}
            self._report("")
            self.follow()
        except ApplyError as error:  # who is guarded by what did not fit is closed to everyone
            self._behind = True
            refused = dict(error.failed)
        except (KmeshError, OSError) as error:
            self._behind = True
            reason = f"the policy is not enforced: {error}"
            refused = dict.fromkeys(self._tables.policies, reason)
            number = count(len(refused), "policy", "policies")
            self._report(f"NOT ENFORCED: {number}, whose traffic stays as open as it was: {error}")
        self._failed = {one.resource: one.reason for one in self._tables.problems} | refused
        return self._failed

    def fault(self) -> str | None:
        """Why the kernel does not enforce what the source said; None when it does."""
        return self._fault or self._unguarded or None

    @property
    def is_behind(self) -> bool:
        """Whether the kernel lacks something that another attempt may bring in."""
        return self._behind

    def _apply(self, ops: Sequence[Op]) -> None:
        if self._kernel is None:
            self._kernel = self._open()
            _log.info("policies guard workloads of this node: decided in the kernel from now on")
        if self._behind:
            ops = self._tables.resync(self._kernel.contents())
        before = self._kernel.hits() if any(op.value is None for op in ops) else []
        self._kernel.apply(ops)
        now = self._tables.set_names()
        for hit in before:
            if hit.set not in now:
                self._past[self._name(hit)] += hit.times
        self._names = now

    def _name(self, hit: Hits) -> str:
        """The key of the policy that decided; "" when none allowed it."""
        keys = self._names.get(hit.set, [])
        return keys[hit.policy - 1] if 0 < hit.policy <= len(keys) else ""

    def _look_for_addresses(self) -> bool:
        """Whether this node has other addresses now, which the kernel has to be told."""
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = time.monotonic()
        try:
            return self._tables.exempt(self._own_addresses())
        except KmeshError as error:  # those that were known stay exempt
            _log.warning("%s", error)
            return False

    @property
    def is_needed(self) -> bool:
        """Whether a policy guards any workload of this node, and is to be enforced."""
        wanted = self._kernel is not None and self._tables.is_needed
        return wanted and not self._disabled_since

    def switch(self, *, on: bool) -> None:
        """Enforce policies, or let every new connection through; a new process always enforces.

        Only who judges goes: policies are kept up to date meanwhile, so that they hold at once when it is on again.

        Raises:
            KmeshError: who judges cannot be taken away; policies are enforced as before.
        """
        before = self._disabled_since
        if on != bool(before):
            return
        self._disabled_since = "" if on else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            self.follow()
        except OSError as error:
            self._disabled_since = before
            self.follow()
            raise KmeshError(f"the enforcement of policies cannot be switched: {error}") from error
        if on:
            _log.warning("policies are enforced again, for new connections")
        else:
            _log.error("POLICIES ARE NOT ENFORCED ANY MORE: switched off (kmeshctl authz enable)")

    def look(self) -> None:
        """Take note of what changes without an update: this node's addresses, and namespaces."""
        if self._look_for_addresses():
            self.program(Update())
        else:
            self.follow()

    def follow(self) -> None:
        """Guard the namespaces that there are now, or none when no policy needs it.

        To be called again and again: managed processes make namespaces when they like. One that
        cannot be guarded is a fault until it is, or is gone; the others are guarded all the same.
        """
        reasons: list[str] = []
        self._guarded = (0, 0)
        if self.is_needed:
            reasons = self._guard(list(self._namespaces()))
        elif self._kernel is not None:
            self._kernel.release_all()
        guarded, wanted = self._guarded
        unguarded = (
            f"NOT GUARDED: {wanted - guarded} of {wanted} network namespaces, whose workloads "
            f"anyone reaches: {reasons[0]}"
            if reasons
            else ""
        )
        if unguarded and unguarded != self._unguarded:
            _log.error("%s", unguarded)
        self._unguarded = unguarded

    def _guard(self, paths: Sequence[Path]) -> list[str]:
        """Returns why each that is not guarded is not."""
        assert self._kernel is not None
        reasons, gone = [], 0
        for path in paths:
            try:
                self._kernel.guard_netns(path)
            except BpfError as error:
                if path.exists():
                    reasons.append(str(error))
                else:
                    gone += 1  # its process has just ended
        wanted = len(paths) - gone
        self._guarded = (wanted - len(reasons), wanted)
        return reasons

    def leave(self, inode: int) -> None:
        """A network namespace is no longer managed, or is gone."""
        if self._kernel is not None:
            self._kernel.release_inode(inode)

    # What is told.

    def hits(self) -> Counter[str]:
        """How often each policy decided, by key; "" for connections that no allow policy matched."""
        found = self._past.copy()
        for hit in self._kernel.hits() if self._kernel else ():
            found[self._name(hit)] += hit.times
        return found

    def describe(self) -> Mapping[str, Any]:
        """Every policy with where it is decided and how often it decided, ready for JSON."""
        hits = self.hits()
        found = sorted(self._tables.policies.items())
        return {
            "policies": [self._describe(policy, hits[key]) for key, policy in found],
            "enforced": not self._disabled_since,
            "refused_by_default": hits[""],
            "exempt": [str(address) for address in self._tables.exempted],
            "namespaces": {"guarded": self._guarded[0], "managed": self._guarded[1]},
        }

    def summary(self) -> Mapping[str, Any]:
        """Whether policies are enforced, ready for JSON."""
        return {
            "enforced": not self._disabled_since,
            "disabled_since": self._disabled_since,
            "policies": len(self._tables.policies),
            "guarded": self._guarded[0],
        }

    def _describe(self, policy: Policy, hits: int) -> Mapping[str, Any]:
        guarded = self._tables.guarded_by(policy.key)
        decided, reason = where_decided(policy, by_gate=self.requests_are_judged)
        return {
            "name": policy.name,
            "namespace": policy.namespace,
            "scope": str(policy.scope),
            "action": str(policy.action),
            "dry_run": policy.dry_run,
            "decided": decided,
            "reason": reason if guarded or policy.services else "guards no workload of this node",
            "failed": self._failed.get(policy.key, ""),
            "guards": [str(address) for address in guarded],
            "hits": hits,
        }

    # The end.

    def close(self) -> None:
        """Let go; what is pinned works on."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def destroy(self) -> None:
        """Remove everything from the kernel."""
        if self._kernel is not None:
            self._kernel.destroy()
            self._kernel = None


def where_decided(policy: Policy, *, by_gate: bool = False) -> tuple[str, str]:
    """Where a policy is decided, "kernel", "gate", "waypoint" or two of these, and why.

    Args:
        policy: the policy.
        by_gate: conditions on requests are decided on this node, where they are known.
    """
    matches = [match for group in policy.groups for rule in group for match in rule]
    by_gate = by_gate and policy.rules is not None and not policy.beyond
    proxy = "gate" if by_gate else "waypoint"
    reasons = [f"{why}, for the waypoint" for why in policy.beyond]
    if policy.needs_http or (policy.judges_requests and not reasons):
        reasons.append(f"conditions on HTTP are for the {proxy}")
    if by_gate and lets_nobody_connect(policy):
        reasons.append("connections are not let in by them here (--http-policies)")
    if policy.extensions:
        reasons.append(f"extensions are for the waypoint: {', '.join(policy.extensions)}")
    place = f"kernel, {proxy}" if reasons else "kernel"
    if (
        reasons
        and (policy.services or all(match.empty for match in matches))
        and not policy.extensions
    ):
        place = proxy
    if policy.unreadable:
        effect = "fail" if policy.action == "ALLOW" else "hold"
        names = ", ".join(policy.unreadable)
        reasons.append(f"cannot be told here, taken to {effect}: {names}")
    return place, "; ".join(reasons)
