# SPDX-License-Identifier: Apache-2.0
"""The least that anything past TCP costs (floor.bpf.c), for what does more to be compared with."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ci.bench.stage import CHECKOUT
from runtime.bpf.attach import AttachType, Link, attach_to_map, detach_from_map
from runtime.bpf.objects import BpfObject

SOURCE = CHECKOUT / "ci/bench/floor.bpf.c"


@contextmanager
def floor(cgroups: Sequence[Path], port: int, scratch: Path) -> Iterator[None]:
    """While it lasts, connections from these cgroups to that port in one of them are past TCP.

    Args:
        cgroups: of clients and servers.
        port: the servers'.
        scratch: a directory for the compiled program.
    """
    target = scratch / "floor.bpf.o"
    # The directory is where distributions with several architectures have <asm/types.h>.
    options = ["-O2", "-g", "-target", "bpf", f"-I/usr/include/{os.uname().machine}-linux-gnu"]
    subprocess.run(["clang", *options, "-c", SOURCE, "-o", target], check=True)
    with ExitStack() as stack:
        opened = stack.enter_context(BpfObject(target))
        opened.set_initial_value(".rodata", struct.pack("=I", port))
        opened.load()
        programs, sockets = opened.programs(), opened.maps()["sockets"].fd
        send = programs["floor_send"].fd
        attach_to_map(send, sockets, AttachType.SK_MSG_VERDICT)
        stack.callback(detach_from_map, send, sockets, AttachType.SK_MSG_VERDICT)
        for cgroup in cgroups:
            directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, directory)
            join = programs["floor_join"].fd
            stack.callback(Link.to_cgroup(join, directory, AttachType.CGROUP_SOCK_OPS).close)
        yield
