# SPDX-License-Identifier: Apache-2.0
"""Policies on their way into the kernel: when it is asked for, when it fails, and what is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from runtime.bpf.lib import BpfError
from runtime.control.authorization import Authorization, where_decided
from runtime.errors import KmeshError
from runtime.kernel.apply import ApplyError
from runtime.kernel.authorize import Hits
from runtime.model.mesh import Workload
from runtime.model.policy import Action, Match, Policy, PolicyScope
from runtime.model.policy_opened import opened
from runtime.source.authorization_policy import parse_authorization_policy
from runtime.source.fields import Field
from runtime.source.update import Update
from runtime.tables.ops import Op
from runtime.tables.place import Place
from runtime.tables.policies import TABLES, Contents

POD = Workload(
    uid="pod", name="pod", namespace="shop", addresses=(ip_address("10.244.0.1"),),
    service_account="db", node="here",
)  # fmt: skip


def policy(name: str, *matches: Match, **fields: object) -> Policy:
    given = {"namespace": "shop", "scope": PolicyScope.NAMESPACE, "groups": ((matches,),)} | fields
    return Policy(name=name, **given)  # type: ignore[arg-type]


PORT = policy("port", Match(destination_ports=(80,)))


class MemoryKernel:
    """Maps in memory, which refuse as often as they are told."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
        self.refuse: list[KmeshError] = []
        self.guarded: list[Path] = []
        self.unguardable: set[Path] = set()
        self.counted: list[Hits] = []
        self.opened = 0

    def apply(self, ops: Sequence[Op]) -> None:
        if self.refuse:
            raise self.refuse.pop()
        for op in ops:
            if op.value is None:
                del self.maps[op.table][op.key]
            else:
                self.maps[op.table][op.key] = op.value

    def contents(self) -> Contents:
        return {table: dict(content) for table, content in self.maps.items()}

    def hits(self) -> list[Hits]:
        return self.counted

    def guard_netns(self, path: Path) -> None:
        if path.name == "gone":
            raise BpfError("no such namespace", 2)
        if path in self.unguardable:
            raise BpfError("too many links", 7)
        self.guarded.append(path)

    def release_inode(self, inode: int) -> None: ...
    def release_all(self) -> None:
        self.guarded = []

    def close(self) -> None: ...
    def destroy(self) -> None:
        self.maps = {table: {} for table in TABLES}

    @property
    def number(self) -> int:
        """The set that is in force."""
        (guard,) = self.maps["guards"].values()
        return int.from_bytes(guard[:8], "little")


@pytest.fixture
def kernel() -> MemoryKernel:
    return MemoryKernel()


def authorization(kernel: MemoryKernel, *, adopt: bool = False) -> Authorization:
    def open_kernel() -> MemoryKernel:
        kernel.opened += 1
        return kernel

    return Authorization(
        open_kernel,
        adopt=adopt,
        place=Place(node="here"),
        namespaces=lambda: [Path("/proc/self/ns/net"), Path("/nowhere/gone")],
    )


def test_the_kernel_is_asked_only_when_a_policy_guards_somebody(kernel: MemoryKernel) -> None:
    made = authorization(kernel)
    assert made.program(Update(workloads=(POD,), complete=True)) == {}
    assert made.program(Update(policies=(policy("x", namespace="elsewhere"),))) == {}
    assert kernel.opened == 0
    assert made.program(Update(policies=(PORT,))) == {}
    assert (kernel.opened, len(kernel.maps["guards"])) == (1, 1)
    assert kernel.guarded == [Path("/proc/self/ns/net")]
    made.program(Update(removed_policies=("shop/port",)))
    assert kernel.guarded == []
    assert not any(kernel.maps.values())


def test_switched_off_nobody_is_judged_and_policies_are_kept_up_to_date(
    kernel: MemoryKernel,
) -> None:
    made = authorization(kernel)
    made.program(Update(policies=(PORT,), workloads=(POD,), complete=True))
    made.switch(on=False)
    assert kernel.guarded == []
    assert not made.is_needed
    assert made.fault() is None
    made.follow()
    assert kernel.guarded == []
    before = kernel.contents()
    made.program(Update(policies=(policy("other", Match(destination_ports=(81,))),)))
    assert kernel.contents() != before
    assert kernel.guarded == []
    summary = made.summary()
    assert (summary["enforced"], summary["policies"]) == (False, 2)
    since = summary["disabled_since"]
    made.switch(on=False)
    assert made.summary()["disabled_since"] == since
    made.switch(on=True)
    assert kernel.guarded == [Path("/proc/self/ns/net")]
    assert made.summary()["enforced"]


def test_what_cannot_be_switched_off_stays_on(
    kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = authorization(kernel)
    made.program(Update(policies=(PORT,), workloads=(POD,), complete=True))

    def refuse() -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(kernel, "release_all", refuse)
    with pytest.raises(KmeshError, match="Read-only file system"):
        made.switch(on=False)
    assert made.is_needed
    assert made.summary()["enforced"]


@pytest.mark.parametrize(
    "error", [KmeshError("out of memory"), ApplyError({"policies shop/port": "map full"})]
)
def test_a_policy_that_the_kernel_refuses_is_named_and_tried_again(
    kernel: MemoryKernel, error: KmeshError
) -> None:
    made = authorization(kernel)
    kernel.refuse = [error]
    (named,) = made.program(Update(policies=(PORT,), workloads=(POD,), complete=True))
    assert "shop/port" in named
    behind = [made.is_behind]
    assert made.program(Update()) == {}
    assert [*behind, made.is_behind] == [True, False]
    assert len(kernel.maps["guards"]) == 1


def test_what_an_earlier_daemon_left_is_taken_over(kernel: MemoryKernel) -> None:
    whole = Update(policies=(PORT,), workloads=(POD,), complete=True)
    authorization(kernel).program(whole)
    before = kernel.contents()
    made = authorization(kernel, adopt=True)
    assert made.program(whole) == {}
    assert kernel.contents() == before
    made.program(Update(complete=True))
    assert not any(kernel.maps.values())


def test_hits_are_told_by_policy_and_outlive_a_change(kernel: MemoryKernel) -> None:
    made = authorization(kernel)
    made.program(
        Update(policies=(PORT, policy("other", Match(destination_ports=(81,)))), workloads=(POD,))
    )
    kernel.counted = [
        Hits(kernel.number, 0, 7),
        Hits(kernel.number, 1, 2),
        Hits(kernel.number, 2, 5),
    ]
    assert made.hits() == {"": 7, "shop/other": 2, "shop/port": 5}
    made.program(Update(removed_policies=("shop/other",)))
    kernel.counted = [Hits(kernel.number, 1, 10)]
    assert made.hits() == {"": 7, "shop/other": 2, "shop/port": 15}
    told = made.describe()
    assert told["refused_by_default"] == 7
    (port,) = told["policies"]
    assert (port["hits"], port["guards"], port["decided"]) == (15, ["10.244.0.1"], "kernel")


@pytest.mark.parametrize(
    ("given", "place", "reason"),
    [
        (PORT, "kernel", ""),
        (policy("http", Match()), "waypoint", "HTTP"),
        (policy("both", Match(), Match(destination_ports=(80,))), "kernel, waypoint", "HTTP"),
        (policy("wasm", Match(destination_ports=(80,)), extensions=("wasm",)), "kernel, waypoint", "wasm"),
        (policy("new", Match(unreadable=("field 99",)), action=Action.DENY), "kernel", "taken to hold: field 99"),
        (policy("new", Match(unreadable=("field 99",))), "kernel", "taken to fail"),
        (policy("all", groups=((),)), "kernel", ""),
    ],
)  # fmt: skip
def test_where_a_policy_is_decided(given: Policy, place: str, reason: str) -> None:
    decided, why = where_decided(given)
    assert decided == place
    assert (reason in why) if reason else not why


def test_where_a_policy_is_decided_whose_rules_are_known() -> None:
    post: Any = {"to": [{"operation": {"methods": ["POST"]}}]}
    made = {
        action: parse_authorization_policy(
            Field({"spec": {"action": action, "rules": [post]}}), name="p", namespace="shop"
        )
        for action in ("ALLOW", "DENY")
    }
    assert where_decided(made["DENY"]) == ("waypoint", "conditions on HTTP are for the waypoint")
    by_gate = "conditions on HTTP are for the gate"
    assert where_decided(made["DENY"], by_gate=True) == ("gate", by_gate)
    decided, why = where_decided(made["ALLOW"], by_gate=True)
    assert (decided, why.startswith(by_gate), "--http-policies" in why) == ("gate", True, True)
    # Where the word of clients' nodes is taken, the kernel has a part in it again.
    assert where_decided(opened(made["ALLOW"]), by_gate=True) == ("kernel, gate", by_gate)
    custom = replace(made["DENY"], beyond=("action: CUSTOM, which ext decides",), groups=())
    assert where_decided(custom, by_gate=True)[0] == "waypoint"


@pytest.mark.parametrize("error", [KmeshError("no such program type"), OSError(30, "Read-only")])
def test_policies_that_nothing_enforces_are_a_fault_until_something_does(
    kernel: MemoryKernel, error: Exception
) -> None:
    refusals = [error]

    def open_kernel() -> MemoryKernel:
        if refusals:
            raise refusals.pop()
        return kernel

    made = Authorization(open_kernel, adopt=False, place=Place(node="here"), namespaces=list)
    assert made.fault() is None
    failed = made.program(Update(policies=(PORT,), workloads=(POD,)))
    assert str(error) in failed[PORT.key]
    assert str(made.fault()).startswith("NOT ENFORCED: 1 policy")
    assert made.program(Update()) == {}
    assert made.fault() is None
    assert kernel.maps["guards"]


def test_what_cannot_be_adopted_is_a_fault_and_tried_again(kernel: MemoryKernel) -> None:
    refusals = [KmeshError("another version")]

    def open_kernel() -> MemoryKernel:
        if refusals:
            raise refusals.pop()
        return kernel

    made = Authorization(open_kernel, adopt=True, place=Place(node="here"), namespaces=list)
    assert "policies of before guard on" in str(made.fault())
    made.program(Update(policies=(PORT,), workloads=(POD,), complete=True))
    assert made.fault() is None
    assert kernel.maps["guards"]


def test_a_namespace_that_is_not_guarded_is_a_fault_and_the_others_are_guarded(
    kernel: MemoryKernel, tmp_path: Path
) -> None:
    places = [tmp_path / name for name in ("first", "second", "third")]
    for place in places:
        place.touch()
    kernel.unguardable = {places[1]}
    made = Authorization(
        lambda: kernel, adopt=False, place=Place(node="here"), namespaces=lambda: places
    )
    made.program(Update(policies=(PORT,), workloads=(POD,)))
    assert kernel.guarded == [places[0], places[2]]
    assert str(made.fault()).startswith("NOT GUARDED: 1 of 3 network namespaces")
    assert made.describe()["namespaces"] == {"guarded": 2, "managed": 3}
    kernel.unguardable = set()
    made.follow()
    assert made.fault() is None
    made.program(Update(removed_policies=(PORT.key,)))
    assert made.describe()["namespaces"] == {"guarded": 0, "managed": 0}
