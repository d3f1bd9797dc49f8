# SPDX-License-Identifier: Apache-2.0
"""The matrix's results: kept as JSON in the repository, and told to people in docs/kernels.md.

What is kept has no times and no counts of balancing in it: two runs on the same kernels write the
same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

_CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = _CHECKOUT / "docs/kernels.json"
DOCUMENT = _CHECKOUT / "docs/kernels.md"
TEMPLATE = Path(__file__).with_name("kernels.md.in")
_MARK = "<!-- {} -->\n"
# What the table of capabilities leaves out: they are about the build and the host, not the kernel.
_NOT_THE_KERNEL = ("capability.", "objects.", "compile.", "load.", "helpers.", "maps.", "programs.")


def kept(row: Row) -> dict[str, Any]:
    """The part of a row that is the same each time."""
    return {
        "suite": row["suite"],
        "release": row["release"],
        "depth": row["depth"],
        "version": row["version"],
        "mode": row["mode"],
        "kernel_mode": row["kernel_mode"],
        "served": row["served"]["mode"],
        "offline_decided": row["offline"]["decided"],
        "verdicts": dict(sorted(row["verdicts"].items())),
        "tests": {path: _total(row["tests"], path) for path in _paths(row)},
        "degraded": degraded(row["degraded"]),
    }


def degraded(scenarios: Iterable[Row]) -> dict[str, Any]:
    """What is kept of poorer hosts."""
    return {
        each["scenario"]: {"title": each["title"], "mode": each["ran"]["mode"]}
        for each in scenarios
    }


def _paths(row: Row) -> list[str]:
    return list(dict.fromkeys(each["path"] for each in row["tests"]))


def _total(tests: Iterable[Row], path: str) -> dict[str, Any]:
    """What came of all suites of a path, with the reasons of what was skipped."""
    suites = [each for each in tests if each["path"] == path]
    reasons = sorted({why for each in suites for why in each["skipped"]})
    return {
        "passed": sum(each["passed"] for each in suites),
        "skipped": sum(sum(each["skipped"].values()) for each in suites),
        **({"reasons": reasons} if reasons else {}),
    }


def merged(old: Iterable[Row], new: Iterable[Row], *, order: Sequence[str]) -> list[Row]:
    """The rows of this run over those of earlier ones, in the order of the list of kernels."""
    by_suite = {row["suite"]: row for row in old} | {row["suite"]: row for row in new}
    return [by_suite[suite] for suite in order if suite in by_suite]


def read(path: Path = RESULTS) -> list[Row]:
    """The rows that are kept; none where there is no file."""
    return list(json.loads(path.read_text())["kernels"]) if path.exists() else []


def write(rows: Sequence[Row], path: Path = RESULTS) -> None:
    path.write_text(json.dumps({"schema": 1, "kernels": list(rows)}, indent=1) + "\n")


def document(rows: Sequence[Row], template: str, *, listed: Sequence[str]) -> str:
    """docs/kernels.md: the template with its tables filled in.

    Args:
        rows: what is kept.
        template: with a mark for each table.
        listed: the suites of kernels.list: those without a row are named.
    """
    missing = [suite for suite in listed if suite not in {row["suite"] for row in rows}]
    tables = {
        "matrix": _matrix(rows),
        "verdicts": _verdicts(rows),
        "missing": [f"Listed, and not measured yet (`make matrix`): {', '.join(missing)}.", ""]
        if missing
        else [],
        "skipped": _skipped(rows),
        "degraded": _degraded(rows),
    }
    for name, lines in tables.items():
        template = template.replace(_MARK.format(name), "".join(f"{line}\n" for line in lines))
    return template


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _matrix(rows: Sequence[Row]) -> Iterator[str]:
    head = (
        "kernel (Debian's)", "upstream", "`kmesh run`", "the kernel itself", "data plane tests",
        "offline = live",
    )  # fmt: skip
    yield from _table(head, map(_matrix_row, rows))


def _matrix_row(row: Row) -> tuple[str, ...]:
    tests = "; ".join(
        f"{path}: {each['passed']} passed" + (f", {each['skipped']} skipped" if each["skipped"] else "")
        for path, each in row["tests"].items()
    )  # fmt: skip
    tests += "" if row["depth"] == "full" else " (quick)"
    decided = f"{row['offline_decided']} of {row['offline_decided']} capabilities"
    return (
        row["release"], row["version"], f"{row['served']}, serves", row["kernel_mode"], tests, decided,
    )  # fmt: skip


def _skipped(rows: Sequence[Row]) -> Iterator[str]:
    """Which kernels skip tests for a reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        told = (why for each in row["tests"].values() for why in each.get("reasons", ()))
        for why in dict.fromkeys(told):  # paths may share one
            found.setdefault(why, []).append(_short(row))
    if found:
        yield "What is skipped; anywhere else that is a failure (`ci/matrix/skips.list`):"
        yield ""
        yield from (f"- on {', '.join(kernels)}: {why}" for why, kernels in found.items())
        yield ""


def _short(row: Row) -> str:
    return ".".join(row["version"].split(".")[:2])


def _verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """Capabilities that are not present on every kernel."""
    names = sorted({name for row in rows for name in row["verdicts"]})
    told = [
        (f"`{name}`", *(row["verdicts"].get(name, "-") for row in rows))
        for name in names
        if not name.startswith(_NOT_THE_KERNEL)
    ]
    differing = [line for line in told if set(line[1:]) != {"present"}]
    yield from _table(("capability", *map(_short, rows)), differing)
    yield ""
    yield f"The other {len(told) - len(differing)} are `present` on all of them."


def _degraded(rows: Sequence[Row]) -> Iterator[str]:
    titles = {name: each["title"] for row in rows for name, each in row["degraded"].items()}
    told = (
        (title, *(_ran(row["degraded"].get(name)) for row in rows))
        for name, title in titles.items()
    )
    yield from _table(("on a host where", *map(_short, rows)), told)


def _ran(scenario: Row | None) -> str:
    if scenario is None:
        return "-"
    return "refused" if scenario["mode"] == "none" else f"{scenario['mode']}"


if __name__ == "__main__":
    from ci.kernels.debian import wanted

    suites = [each.suite for each in wanted()]
    DOCUMENT.write_text(document(read(), TEMPLATE.read_text(), listed=suites))
