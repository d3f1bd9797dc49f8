# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.matrix [--write] [--quick] [--only STAGE] [--jobs N] [KERNEL...]`: every listed kernel booted, all tried.

A kernel is named by its suite or the beginning of its release: bookworm, 6.12. What each told is kept in
build/matrix/, and --only puts what a part of it tells in its place: stages with a word in their name
(--only enhanced, --only no-btf), or with --only failed those that were not as they should be. Exit status
1: something was not as it should be on one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ci.kernels.debian import Kernel, Wanted, fetch, wanted
from ci.matrix import headers
from ci.matrix.accelerator import accelerator, boots_under_kvm
from ci.matrix.measure import Row, measure
from ci.matrix.plan import chosen
from ci.matrix.results import DOCUMENT, RESULTS, TEMPLATE, document, kept, merged, read, write
from ci.matrix.select import Selection
from ci.matrix.update import AFTER, BEFORE, check_update
from runtime.compile.tree import compile_tree
from runtime.errors import KmeshError
from runtime.probe.cache import objects_digest

_CHECKOUT = Path(__file__).resolve().parents[2]
_OBJECTS = _CHECKOUT / "build/bpf"
_DETAILS = _CHECKOUT / "build/matrix"
_ONLY = "of what the last run tried: stages with this in their name, or those that `failed`"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ci.matrix", description=__doc__)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL")
    parser.add_argument("--quick", action="store_true", help="only what `make test` has time for")
    parser.add_argument("--write", action="store_true", help="keep the results in docs/")
    parser.add_argument("--only", action="append", default=[], metavar="STAGE", help=_ONLY)
    parser.add_argument("--jobs", type=int, default=_room(), help="boots at a time")
    options = parser.parse_args()
    try:
        return _run(options)
    except KmeshError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        print(f"matrix: {error}{hint}", file=sys.stderr)
        return 1


def _room() -> int:
    """How many booted kernels this host has room for: each takes one CPU, and 4 GB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // 4_000_000_000))


def _run(options: argparse.Namespace) -> int:
    depth = "quick" if options.quick else "full"
    compile_tree(_CHECKOUT / "bpf", _CHECKOUT / "build/all", unshipped=True)  # tests have those too
    # The newest first: what it leaves to the others has a verdict in it that was kept, which older kernels
    # with open questions do not leave.
    picked = chosen(wanted(), options.kernels)[::-1]
    with tempfile.TemporaryDirectory(prefix="kmesh-disk-") as disk:
        rows = _all(picked, depth=depth, disk=Path(disk), jobs=options.jobs, only=options.only)
    failed = [(row["release"], line) for row in rows for line in row["failures"]]
    if len(picked) > 1 and rows[0]["update"] and len(rows[-1]["update"]) > 1:
        failed += [("update", line) for line in check_update(rows[0], rows[-1])]
    for where, line in failed:
        print(f"FAILED {where}: {line}", file=sys.stderr)
    if options.write and not failed:
        order = [each.suite for each in wanted()]
        write(merged(read(), map(kept, rows), order=order))
        DOCUMENT.write_text(document(read(), TEMPLATE.read_text(), listed=order))
        print(f"wrote {RESULTS} and {DOCUMENT}")
    return int(bool(failed))


def _update_stages(number: int, count: int) -> Sequence[str]:
    """The first kernel is that before an update, the last the one after it."""
    if count < 2:
        return ()
    return {0: BEFORE, count - 1: AFTER}.get(number, ())


def _all(
    picked: Sequence[Wanted], *, depth: str, disk: Path, jobs: int, only: Sequence[str]
) -> list[Row]:
    """The rows of all, some boots at a time; the last one starts from what the first one left."""
    ready = [(kernel, accelerator(kernel, prove=boots_under_kvm)) for kernel in fetch([*picked])]
    running: list[Future[Row]] = []

    def one(number: int) -> Row:
        also = _update_stages(number, len(picked)) if not only or "update" in only else ()
        if also is AFTER:
            running[0].result()
        kernel, with_ = ready[number]
        return _one(
            kernel,
            picked[number],
            with_=with_,
            depth=depth,
            disk=disk,
            also=also,
            only=only,
        )

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        for number in range(len(picked)):
            running.append(pool.submit(one, number))  # the first is there before the last asks  # noqa: PERF401
        return [each.result() for each in running]


def _one(
    kernel: Kernel,
    listed: Wanted,
    *,
    with_: str,
    depth: str,
    disk: Path,
    also: Sequence[str],
    only: Sequence[str] = (),
) -> Row:
    print(f"{kernel.release}: booting under {with_}", flush=True)
    began = time.monotonic()
    details = _DETAILS / f"{kernel.release}.json"
    take = Selection(only, _last(details, depth) if only else None)
    row = measure(
        kernel,
        suite=listed.suite,
        objects=_OBJECTS,
        depth=depth,
        accelerator=with_,
        also=also,
        disk=disk if also else None,
        take=take,
    )
    if depth == "full":  # its root is another one: a boot of its own
        row = headers.beside(row, listed, take=take)
    row["build"] = _build()
    _DETAILS.mkdir(parents=True, exist_ok=True)
    details.write_text(json.dumps(row, indent=1))
    passed = sum(each["passed"] for each in row["tests"])
    print(
        f"{kernel.release}: {row['served']['mode']} serves, {passed} tests passed, "
        f"{len(row['degraded'])} poorer hosts, {row['offline']['decided']} offline verdicts, "
        f"{len(row['failures'])} failures, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return row


def _build() -> str:
    """Tells the objects that were tried from others."""
    return objects_digest(_OBJECTS.rglob("*.o"))


def _last(details: Path, depth: str) -> Row:
    """What was told at the last run of a kernel.

    Raises:
        KmeshError: nothing, or by other objects: then all has to be tried.
    """
    found: Row = json.loads(details.read_text()) if details.exists() else {}
    if found.get("depth") != depth or found.get("build") != _build():
        raise KmeshError(
            f"{details.stem}: these objects were not tried {depth} before", hint="leave --only out"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
