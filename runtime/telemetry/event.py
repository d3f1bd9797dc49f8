# SPDX-License-Identifier: Apache-2.0
"""One event: what it is called while there are many of them."""

from __future__ import annotations

# The fields of a TcpEvent as a plain tuple: flow, source_port, kind, state, smoothed_rtt_us,
# min_rtt_us, retransmissions, lost, started_ns, now_ns, sent, received. Naming them costs as much
# as counting them.
Fields = tuple[bytes, bytes, int, int, int, int, int, int, int, int, int, int]
OPENED, CLOSED, FAILED = 1, 2, 3  # struct kmesh_tcp_event, kind
