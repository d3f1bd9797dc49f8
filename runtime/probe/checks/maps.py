# SPDX-License-Identifier: Apache-2.0
"""Map types that a shipped object uses."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.probe.capability import Context, Shipped, object_capability
from runtime.probe.verdict import Evidence, Level, Verdict

_SOCKET_MAPS = frozenset({"SOCKMAP", "SOCKHASH"})
_OPTIONS = ("NET_SOCK_MSG", "BPF_STREAM_PARSER")


@object_capability(
    "maps.{object}",
    title="map types",
    consequence="the object cannot be loaded",
    remedy="use a newer kernel, or one with the option named",
)
def probe(context: Context, shipped: Shipped) -> Iterator[Evidence]:
    if shipped.info is None or not shipped.info.maps:
        return
    kinds = sorted({item.type for item in shipped.info.maps})
    sockets = sorted(_SOCKET_MAPS.intersection(kinds))
    if sockets and all(context.facts.option(name) == "n" for name in _OPTIONS):
        summary = f"{sockets[0]} needs CONFIG_{_OPTIONS[0]}=y"
        yield Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary=summary)
        return
    known = context.types.map_types
    missing = [kind for kind in kinds if known and kind not in known]
    if missing:
        summary = f"not in this kernel: {', '.join(missing)}"
        yield Evidence(level=Level.NAME, verdict=Verdict.ABSENT, summary=summary)
    elif known:
        summary = f"known to this kernel: {', '.join(kinds)}"
        yield Evidence(level=Level.NAME, verdict=Verdict.PRESENT, summary=summary)
    else:
        summary = f"only loading can tell without BTF: {', '.join(kinds)}"
        yield Evidence(level=Level.NAME, verdict=Verdict.INCONCLUSIVE, summary=summary)
