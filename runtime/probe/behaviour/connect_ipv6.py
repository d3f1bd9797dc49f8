# SPDX-License-Identifier: Apache-2.0
"""A connection to an IPv6 service address arrives at an endpoint."""

from __future__ import annotations

import socket

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check
from runtime.probe.behaviour.outcome import AbsentError
from runtime.probe.behaviour.rewrite import Rewrite, check_rewriting


@check(
    "connect.ipv6",
    needs=("cgroup.connect6",),
    consequence="IPv6 service addresses are left to kube-proxy; IPv4 ones are not affected",
    remedy="a kernel with IPv6 switched on, CONFIG_CGROUP_BPF and cgroup v2",
)
def connect_ipv6(bench: Bench) -> None:
    try:
        bench.listener(socket.AF_INET6).close()
    except OSError as error:
        raise AbsentError(f"no IPv6 loopback to listen on: {error.strerror}") from error
    # 2001:db8::/32 is for documentation (RFC 3849).
    rewrite = Rewrite(
        family=socket.AF_INET6,
        service="2001:db8::80",
        endpoint="::1",
        program="rewrite6",
        table="services6",
    )
    check_rewriting(bench, rewrite)
