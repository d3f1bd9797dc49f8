# SPDX-License-Identifier: Apache-2.0
"""FIONREAD on an enrolled socket says how many bytes of passed data can be read."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check
from runtime.probe.behaviour.remedy import Remedy, choose
from runtime.probe.behaviour.sockets import Sockets


@check(
    "sockmap.fionread",
    consequence="nginx, Node and others that ask FIONREAD stall on enrolled sockets",
    remedy="a kernel with the count mended (7.2, or one before 6.6.128, 6.12.75, 6.18.14)",
)
def sockmap_fionread(bench: Bench) -> None:
    chosen = choose(bench, Sockets(bench, "redirect", verdict="forward"), keep=True)
    how = "as it is" if chosen is Remedy.NONE else "with a no-op stream verdict on the map"
    bench.saw(f"FIONREAD on passed data is right {how}; remedy chosen: {chosen}")
