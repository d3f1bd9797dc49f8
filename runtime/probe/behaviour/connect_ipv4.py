# SPDX-License-Identifier: Apache-2.0
"""A connection to an IPv4 service address arrives at an endpoint."""

from __future__ import annotations

import socket

from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import check
from runtime.probe.behaviour.rewrite import Rewrite, check_rewriting


@check(
    "connect.ipv4",
    needs=("cgroup.connect4",),
    consequence="IPv4 service addresses cannot be balanced in the kernel: neither mode can run",
    remedy="a kernel with CONFIG_CGROUP_BPF and cgroup v2 (5.10 or later)",
)
def connect_ipv4(bench: Bench) -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): nobody's service.
    rewrite = Rewrite(
        family=socket.AF_INET,
        service="192.0.2.80",
        endpoint="127.0.0.1",
        program="rewrite4",
        table="services4",
    )
    check_rewriting(bench, rewrite)
