# SPDX-License-Identifier: Apache-2.0
"""sockops sees connections begin and end, and enrolls their sockets."""

from __future__ import annotations

from runtime.probe.behaviour.bench import Bench, cookie
from runtime.probe.behaviour.check import check, expect
from runtime.probe.behaviour.sockets import Counter, Sockets


@check(
    "sockops",
    needs=("cgroup.sockops",),
    consequence="connections cannot be enrolled: no enhanced path, no same-node short cut",
    remedy="a kernel with CONFIG_CGROUP_BPF and CONFIG_BPF_STREAM_PARSER",
)
def sockops(bench: Bench) -> None:
    sockets = Sockets(bench, "sockops")
    bench.attach(sockets.object, "enroll")
    client, server = bench.pair()
    both = {cookie(client), cookie(server)}
    expect("connection ends that were seen", expected=2, seen=sockets.count(Counter.ESTABLISHED))
    expect("sockets enrolled", expected=both, seen=sockets.enrolled())
    bench.saw("both ends of a new connection were enrolled")
    client.close()
    server.close()
    bench.until(lambda: sockets.count(Counter.CLOSED) == 2, what="both ends' closing to be seen")
    bench.until(lambda: not sockets.enrolled(), what="closed sockets to leave the map")
    bench.saw("their closing was seen, and they left the map")
