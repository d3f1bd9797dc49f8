# SPDX-License-Identifier: Apache-2.0
"""Counters that the programs keep for each processor."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

from runtime.bpf.lib import check, lib
from runtime.bpf.maps import BpfMap


def total(counters: BpfMap, index: int) -> int:
    """One counter of a per-CPU array of __u64, over all processors.

    Raises:
        BpfError: it cannot be read.
    """
    values = (ctypes.c_uint64 * _possible_cpus())()
    result = lib().bpf_map_lookup_elem(counters.fd, struct.pack("=I", index), values)
    check(result, "cannot read a counter")
    return sum(values)


def _possible_cpus() -> int:
    """How many values an element of a per-CPU map has (Documentation/admin-guide/cputopology)."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
    return int(text.replace(",", "-").rsplit("-", 1)[-1]) + 1
