# SPDX-License-Identifier: Apache-2.0
"""Kmesh's own functions, which openEuler's kernels carry. Elsewhere there is nothing to tell."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.provider import CAPABILITY, ULP, Form, KmeshFunctions, defers, kmesh_functions
from runtime.probe.verdict import Evidence, Level, Verdict


@capability(
    CAPABILITY,
    title="Kmesh's own kernel functions (openEuler), the enhanced path's second provider",
    consequence="nothing where the kernel as it is can route each request, which comes first; elsewhere"
    " HTTP goes to a waypoint (compat)",
    remedy="load the kernel's Kmesh module (`modprobe kmesh`), of the release that has kernel functions",
    decided_by=Level.NAME,
)
def probe(context: Context) -> Iterator[Evidence]:
    found = kmesh_functions(context.types)
    if found.form is Form.NONE:
        return
    wrong = _wrong(found)
    if wrong:
        yield _seen(Verdict.ABSENT, wrong)
        return
    yield _seen(Verdict.PRESENT, f"kernel functions of {found.where}: {', '.join(found.found)}")
    if context.live and not defers():
        yield _seen(Verdict.ABSENT, f"TCP has no upper layer protocol {ULP} to defer connect()")


def _wrong(found: KmeshFunctions) -> str:
    """Why the functions that are there are of no use; "" when they are."""
    if found.form is Form.FORMER:
        return (
            f"helpers of a former form ({', '.join(found.found)}): parse_header_msg takes another"
            " argument there"
        )
    if found.missing:
        return f"{', '.join(found.found)} without {', '.join(found.missing)}"
    if found.form is Form.HELPERS:
        return (
            f"as helpers ({', '.join(found.found)}), whose numbers are the vendor's own: not used"
        )
    return ""


def _seen(verdict: Verdict, summary: str) -> Evidence:
    return Evidence(level=Level.NAME, verdict=verdict, summary=summary)
