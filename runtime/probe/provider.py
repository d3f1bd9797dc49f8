# SPDX-License-Identifier: Apache-2.0
"""Kmesh's own kernel functions (openEuler), and which provider of the enhanced path a kernel gets.

The rule is written down in docs/second-provider.md; `choose` is that rule, and a pure function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from runtime.probe.mode import ModeDecision
from runtime.probe.names import KernelTypes
from runtime.probe.verdict import Finding, Verdict

CAPABILITY = "provider.kmesh"
GROUP = "openeuler"  # of its objects
ULP = "kmesh_defer"
_AVAILABLE_ULP = Path("/proc/sys/net/ipv4/tcp_available_ulp")

# Of openEuler 24.03 (6.6): functions of a module. What else it has, bpf_getsockopt_func and
# bpf_km_header_strnstr_func (it looks for five bytes, whatever it is given), we do without.
KFUNCS = ("bpf_parse_header_msg_func", "bpf_km_header_strncmp_func", "bpf_setsockopt_func")
# Of patched 5.10: helpers.
HELPERS = ("parse_header_msg", "km_header_strncmp", "km_header_strnstr")
# Of openEuler 22.03 and 23.03 before that: parse_header_msg takes another argument there.
FORMER = ("get_msg_header_element",)


class Form(StrEnum):
    """How a kernel offers the functions."""

    NONE = "none"
    KFUNCS = "kfuncs"
    HELPERS = "helpers"
    FORMER = "former helpers"


@dataclass(frozen=True, slots=True, kw_only=True)
class KmeshFunctions:
    """What of Kmesh's own functions a kernel's BTF names.

    Attributes:
        where: the module that has them; "vmlinux"; "" for none.
        missing: names of that form that are not there.
    """

    form: Form
    found: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    where: str = ""


def kmesh_functions(types: KernelTypes) -> KmeshFunctions:
    """Look for them by name; with some names of a form, it is that form, and not whole."""
    homes = {name: home for name in KFUNCS if (home := types.function_home(name))}
    if homes:
        return _functions(Form.KFUNCS, KFUNCS, homes, where=next(iter(homes.values())))
    if any(name in types.helpers for name in FORMER):
        names = (*HELPERS[:1], *FORMER)
        return _functions(Form.FORMER, names, types.helpers, where="vmlinux")
    if any(name in types.helpers for name in HELPERS):
        return _functions(Form.HELPERS, HELPERS, types.helpers, where="vmlinux")
    return KmeshFunctions(form=Form.NONE)


def _functions(
    form: Form, names: tuple[str, ...], there: Iterable[str], *, where: str
) -> KmeshFunctions:
    known = set(there)
    return KmeshFunctions(
        form=form,
        found=tuple(name for name in names if name in known),
        missing=tuple(name for name in names if name not in known),
        where=where,
    )


def naming(modules: Iterable[Path]) -> list[Path]:
    """Of the BTF files of modules those that name any of the functions: of hundreds hardly one.

    What is loaded is read once for this, whatever is then asked of those that are left.
    """
    return [path for path, _ in _naming(modules)]


def identities(modules: Iterable[Path]) -> list[str]:
    """What a kept verdict depends on that is not the kernel's: modules come and go while it runs."""
    return [
        f"{path.name} {hashlib.sha256(data).hexdigest()} {defers()}"
        for path, data in _naming(modules)
    ]


def _naming(modules: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in modules:
        with suppress(OSError):  # unloaded just now
            data = path.read_bytes()
            if any(name.encode() in data for name in KFUNCS):
                yield path, data


def defers(path: Path = _AVAILABLE_ULP) -> bool:
    """Whether the running kernel's TCP has the upper layer protocol that defers connect()."""
    try:
        return ULP in path.read_text().split()
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Provider:
    """Who provides the enhanced path: "stock", "kmesh" (its own functions) or "none", and why."""

    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def choose(findings: Iterable[Finding], decision: ModeDecision) -> Provider:
    """The rule, from what was found out; what this process was denied does not count against a kernel."""
    by_name = {finding.capability: finding for finding in findings}
    if decision.kernel_mode == "enhanced":
        return Provider("stock", "the kernel as it is has what routing each request takes")
    if decision.kernel_mode == "none":
        return Provider("none", "not even connections can be balanced on this kernel")
    return _own(by_name)


def _own(by_name: Mapping[str, Finding]) -> Provider:
    offered = by_name.get(CAPABILITY)
    if offered is None:
        return Provider("none", "neither the kernel as it is nor functions of Kmesh's own")
    if offered.verdict is not Verdict.PRESENT:
        return Provider("none", f"{CAPABILITY} is {offered.verdict}")
    loads = [found for name, found in by_name.items() if name.startswith(f"load.{GROUP}.")]
    if not loads:
        return Provider("none", f"this build of Kmesh carries no program for {CAPABILITY}")
    failed = [found.capability for found in loads if found.verdict is not Verdict.PRESENT]
    if failed:
        return Provider("none", f"not loaded on this kernel: {', '.join(failed)}")
    return Provider("kmesh", "the kernel's own ways to route each request are not sound here")
