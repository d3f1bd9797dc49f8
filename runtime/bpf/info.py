# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of loaded programs, and which programs, maps and links there are."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_uint8, c_uint32, c_uint64
from dataclasses import dataclass

from runtime.bpf.lib import check, lib

VERIFIER_LIMIT = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS (linux/bpf.h), since 5.2

_KINDS = ("prog", "map", "link")


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info (linux/bpf.h) up to verified_insns."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("_code", c_uint64 * 2),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("_map_ids", c_uint64),
        ("name", c_char * 16),
        ("_device", c_uint32 * 2),
        ("_netns", c_uint64 * 2),
        ("_counts", c_uint32 * 2),
        ("_jited", c_uint64 * 2),
        ("btf_id", c_uint32),
        ("_func_info_size", c_uint32),
        ("_func_info", c_uint64),
        ("_info_counts", c_uint32 * 2),
        ("_line_info", c_uint64 * 2),
        ("_line_counts", c_uint32 * 4),
        ("_prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("_rest", c_uint32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProgram:
    """A program in the kernel.

    Attributes:
        id: its number.
        name: at most 15 characters of it.
        instructions: after the verifier's rewriting.
        verified: instructions that the verifier walked, of a million; 0 before kernel 5.16.
        runs: how often it ran, while the kernel kept statistics (bpf_enable_stats).
        run_ns: nanoseconds that these runs took.
    """

    id: int
    name: str
    instructions: int
    verified: int
    runs: int = 0
    run_ns: int = 0


def loaded_program(fd: int) -> LoadedProgram:
    """Describe the program behind a descriptor.

    Raises:
        BpfError: it is no program.
    """
    info = _ProgramInfo()
    size = c_uint32(ctypes.sizeof(info))
    result = lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
    check(result, "cannot describe a program")
    return LoadedProgram(
        id=info.id,
        name=info.name.decode(),
        instructions=info.xlated_prog_len // 8,
        verified=info.verified_insns,
        runs=info.run_cnt,
        run_ns=info.run_time_ns,
    )


def maps_of(fd: int) -> list[int]:
    """The numbers of the maps that a program uses.

    Raises:
        BpfError: it is no program, or this process may not ask.
    """
    info, what = _ProgramInfo(), "cannot list the maps of a program"
    size = c_uint32(ctypes.sizeof(info))
    check(lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), what)
    numbers = (c_uint32 * max(info.nr_map_ids, 1))()
    asked = _ProgramInfo(nr_map_ids=info.nr_map_ids, _map_ids=ctypes.addressof(numbers))
    check(lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(asked), ctypes.byref(size)), what)
    return list(numbers[: min(info.nr_map_ids, asked.nr_map_ids)])


def ids(kind: str) -> set[int]:
    """The numbers of all programs ("prog"), maps ("map") or links ("link") in the kernel."""
    assert kind in _KINDS
    advance = getattr(lib(), f"bpf_{kind}_get_next_id")
    found: set[int] = set()
    number = c_uint32(0)
    while advance(number, ctypes.byref(number)) == 0:
        found.add(number.value)
    return found
