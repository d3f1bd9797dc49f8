# SPDX-License-Identifier: Apache-2.0
"""Becomes another program with as few rights as can be: `confine.py USER PROCS -- PROGRAM ARGUMENT...`.

A program of its own, of the standard library alone: what it drops must be dropped between fork and exec, where a
process with threads may do next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

_CAPBSET_READ, _CAPBSET_DROP, _SET_NO_NEW_PRIVS = 23, 24, 38  # prctl(2)
_CAPABILITIES_V3 = 0x20080522  # capset(2)


def confine(user: int, procs: str) -> None:
    """Give up what can be given up.

    Args:
        user: the user and group to become, which may be who it is: root without any capability.
        procs: the cgroup.procs to go to; "" to stay.
    """
    if procs:
        with open(procs, "w", encoding="ascii") as file:  # noqa: PTH123 - so little is imported
            file.write("0")
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        if libc.prctl(_CAPBSET_READ, number, 0, 0, 0) == 1:
            libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)
    if user != os.geteuid():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def _is_script(program: int) -> bool:
    """Its interpreter opens it once more, by its number."""
    return os.pread(program, 2, 0) == b"#!"


def main(argv: Sequence[str]) -> None:
    user, procs, _, program, *arguments = argv
    try:
        # Opened while that is allowed: the directories above it may be closed to whom this becomes.
        opened = os.open(program, os.O_RDONLY)
        os.set_inheritable(opened, _is_script(opened))
        confine(int(user), procs)
        os.execve(opened, [program, *arguments], os.environ)  # noqa: S606 - what this is for
    except OSError as error:
        sys.exit(f"cannot become {program}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
