# SPDX-License-Identifier: Apache-2.0
"""What telemetry is made of: a ring buffer, and TCP's own counts of a connection."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict

_MAP = "RINGBUF"
_HELPERS = ("ringbuf_reserve", "ringbuf_submit", "ringbuf_query", "skc_to_tcp_sock")


@capability(
    "telemetry",
    title="events of connections through a ring buffer",
    consequence="no TCP metrics and no access log; traffic is served as otherwise",
    remedy="use kernel 5.10 or later, with BTF",
)
def probe(context: Context) -> Iterator[Evidence]:
    if not context.types.available:
        summary = f"without the kernel's BTF TCP's counts cannot be found ({context.types.reason})"
        yield Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary=summary)
        return
    missing = [f"helper {name}" for name in _HELPERS if name not in context.types.helpers]
    if _MAP not in context.types.map_types:
        missing.insert(0, f"map type {_MAP}")
    if missing:
        summary = f"not in this kernel: {', '.join(missing)}"
        yield Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary=summary)
        return
    summary = f"map type {_MAP} and {len(_HELPERS)} helpers are here"
    yield Evidence(level=Level.NAME, verdict=Verdict.PRESENT, summary=summary)
