# SPDX-License-Identifier: Apache-2.0
"""Whether a capability can be relied on where nothing stands behind it: only what was seen to work can."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.probe.mode import explain
from runtime.probe.verdict import Finding, Verdict


def lacks(by_name: Mapping[str, Finding], name: str) -> str:
    """Why a capability cannot be relied on, "" when it can."""
    found = by_name.get(name)
    if found is None:
        return f"{name} was not looked at"
    return "" if found.verdict is Verdict.PRESENT else explain(found)


def falls(by_name: Mapping[str, Finding], name: str) -> str:
    """The same, where every way counts: a kernel may do right by passed data, not by redirected."""
    found = by_name.get(name)
    seen = found.evidence if found else ()
    wrong = [item.summary for item in seen if item.verdict is not Verdict.PRESENT]
    return lacks(by_name, name) or (f"{name} is in part broken ({wrong[0]})" if wrong else "")
