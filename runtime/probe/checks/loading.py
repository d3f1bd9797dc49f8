# SPDX-License-Identifier: Apache-2.0
"""The third evidence: the shipped object itself, loaded, and attached where no process lives."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from runtime.bpf.attach import Link, attach_to_map
from runtime.bpf.helpers import may_call
from runtime.bpf.info import VERIFIER_LIMIT, loaded_program
from runtime.bpf.lib import BpfError
from runtime.bpf.objects import BpfObject, Program
from runtime.objects import uapi
from runtime.objects.info import ObjectInfo, ProgramInfo
from runtime.probe.capability import Context, Shipped, object_capability
from runtime.probe.denial import why_denied
from runtime.probe.loadcgroup import load_cgroup
from runtime.probe.verdict import Evidence, Level, Verdict

_LARGE = 1024  # elements: more cost the probe memory and time (a hash's buckets are zeroed)
_ON_MAPS = ("SK_MSG", "SK_SKB")
_UNHELPFUL = ("processed ", "-- ", "verification time", "stack depth", "libbpf: ")


@object_capability(
    "load.{object}",
    title="the object loaded and attached on this kernel",
    consequence="this object's path cannot run",
    remedy="see the verifier's line; `kmesh probe --explain` shows all of its log",
    decided_by=Level.LOAD,
)
def probe(context: Context, shipped: Shipped) -> Iterator[Evidence]:
    if shipped.info is None:
        if shipped.costs:  # of a path, `objects.<path>` says it
            yield Evidence(level=Level.FACT, verdict=Verdict.BROKEN, summary=shipped.error)
        return
    if not context.live:
        summary = "only loading can tell, and this kernel is not running"
        yield Evidence(level=Level.LOAD, verdict=Verdict.INCONCLUSIVE, summary=summary)
        return
    try:
        with BpfObject(shipped.info.path) as opened:
            left_out = _prepare(opened, shipped.info)
            opened.load()
            without = f" without {', '.join(left_out)}" if left_out else ""
            number = len(opened.programs()) - len(left_out)
            summary = f"loaded {number} programs{without}{_effort(opened)}"
            yield Evidence(level=Level.LOAD, verdict=Verdict.PRESENT, summary=summary)
            yield from _attach(context, opened)
    except BpfError as error:
        yield _refused(context, error)


def _prepare(opened: BpfObject, info: ObjectInfo) -> list[str]:
    """Load nothing onto the host's bpffs, no large maps, and no program that this kernel has no use for.

    Returns:
        the programs that are left out, as the data path does (optional.h).
    """
    for item in info.maps:
        if item.pinning:
            opened.set_pin_path(item.name, None)
        if item.max_entries > _LARGE and item.key_size:
            opened.set_max_entries(item.name, _LARGE)
    left_out = [
        item.name
        for item in info.programs
        if item.name in info.optional_programs and not _may_load(opened.programs()[item.name], item)
    ]
    for name in left_out:
        opened.set_autoload(name, load=False)
    return left_out


def _may_load(program: Program, info: ProgramInfo) -> bool:
    return all(
        may_call(program.type, use.id, attach_type=program.attach_type) for use in info.helpers
    )


def _effort(opened: BpfObject) -> str:
    """How far the verifier was from giving up."""
    loaded = [loaded_program(one.fd) for one in opened.programs().values() if one.fd >= 0]
    most = max(loaded, key=lambda one: one.verified, default=None)
    if most is None or not most.verified:  # before kernel 5.16 it is not told
        return ""
    return (
        f"; the verifier walked at most {most.verified:,} instructions ({most.name}) of the "
        f"{VERIFIER_LIMIT:,} that it allows"
    )


def _attach(context: Context, opened: BpfObject) -> Iterator[Evidence]:
    mount = context.facts.cgroup2_mount
    programs = [item for item in opened.programs().values() if item.fd >= 0]
    to_cgroup = [item for item in programs if _kind(item).startswith(("CGROUP_", "SOCK_OPS"))]
    to_maps = [item for item in programs if _kind(item) in _ON_MAPS]
    if to_cgroup and mount:
        yield from _attach_to_cgroup(context, Path(mount), to_cgroup)
    if to_maps:
        yield from _attach_to_maps(context, opened, to_maps)


def _attach_to_cgroup(context: Context, mount: Path, programs: list[Program]) -> Iterator[Evidence]:
    try:
        with load_cgroup(mount) as cgroup:
            for program in programs:
                Link.to_cgroup(program.fd, cgroup, program.attach_type).close()
    except BpfError as error:
        yield _refused(context, error, doing="attaching to a scratch cgroup")
    except OSError as error:
        yield Evidence(
            level=Level.LOAD,
            verdict=Verdict.INCONCLUSIVE,
            summary=f"attaching was not tried: no scratch cgroup in {mount} ({error.strerror})",
            errno=error.errno,
        )
    else:
        summary = f"attached {len(programs)} programs to a scratch cgroup"
        yield Evidence(level=Level.LOAD, verdict=Verdict.PRESENT, summary=summary)


def _attach_to_maps(
    context: Context, opened: BpfObject, programs: list[Program]
) -> Iterator[Evidence]:
    maps = [item for item in opened.maps().values() if uapi.map_type(item.type).startswith("SOCK")]
    # One program for each place: a second one would replace the first.
    for program in {item.attach_type: item for item in programs}.values() if maps else ():
        try:
            attach_to_map(program.fd, maps[0].fd, program.attach_type)
        except BpfError as error:
            yield _refused(context, error, doing="attaching to a socket map")
        else:
            summary = f"attached {program.name} to map {maps[0].name}"
            yield Evidence(level=Level.LOAD, verdict=Verdict.PRESENT, summary=summary)


def _kind(program: Program) -> str:
    return uapi.program_type(program.type)


def _refused(context: Context, error: BpfError, *, doing: str = "loading") -> Evidence:
    line = telling_line(error.log)
    denial = why_denied(context.facts, code=error.errno, log=error.log)
    if denial is not None:
        return Evidence(
            level=Level.LOAD,
            verdict=Verdict.DENIED,
            summary=f"{doing} was refused: {denial.reason}",
            errno=error.errno,
            log=error.log,
            remedy=denial.remedy,
        )
    because = f": {line}" if line else ""
    return Evidence(
        level=Level.LOAD,
        verdict=Verdict.ABSENT,
        summary=f"{doing} failed with {errno.errorcode.get(error.errno, error.errno)}"
        f" ({os.strerror(error.errno)}){because}",
        errno=error.errno,
        log=error.log,
        remedy=_hint(error.errno, line),
    )


def _hint(code: int, line: str) -> str:
    if code == errno.EINVAL and not line:
        # Since the fix of CVE-2025-40123 a prog_array pins the attach type of what uses it.
        return (
            "the verifier gave no reason: kernels with the fix of CVE-2025-40123 refuse programs of"
            " different attach types that share a prog_array; use a release that knows them"
        )
    return ""


def telling_line(log: str) -> str:
    """The line of a verifier's or libbpf's log that says what is wrong; "" when there is none."""
    lines = [line.strip() for line in log.splitlines()]
    useful = [line for line in lines if line and not line.startswith(_UNHELPFUL)]
    if useful:
        return useful[-1]
    said = [line.removeprefix("libbpf: ") for line in lines if line.startswith("libbpf: ")]
    return next((line for line in said if "-- " not in line), "")
