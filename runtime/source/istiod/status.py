# SPDX-License-Identifier: Apache-2.0
"""How the connection to Istiod fares, for the status server, the metrics and the log."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(slots=True, kw_only=True)
class StreamStatus:
    """Counters and the present state of one stream.

    Attributes:
        connected: a stream is open and Istiod has answered on it.
        synced: all resource types have been received whole since the start.
        streams: streams opened, the present one included.
        failures: streams that ended before they gave anything, or with a response that made no sense.
        responses, acks, nacks: since the start.
        last_response: Unix time of the last response in seconds, None before the first.
        last_error: why the last stream ended, None while one is up.
        refused: the reason for each resource that is refused now.
    """

    address: str = ""
    connected: bool = False
    synced: bool = False
    streams: int = 0
    failures: int = 0
    responses: int = 0
    acks: int = 0
    nacks: int = 0
    last_response: float | None = None
    last_error: str | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The same as plain values."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class IstiodStatus(StreamStatus):
    """The workload API's.

    Attributes:
        services, workloads, policies: how many are held.
        unresolved: the reason for each hostname that cannot be resolved now.
        on_demand: only what was asked for is held.
    """

    on_demand: bool = False
    services: int = 0
    workloads: int = 0
    policies: int = 0
    unresolved: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class AdsStatus(StreamStatus):
    """Of ADS.

    Attributes:
        offered: False: the server says that it has no such thing, and so there is no HTTP.
        clusters, endpoints, listeners, route_tables: how many are held.
    """

    offered: bool = True
    clusters: int = 0
    endpoints: int = 0
    listeners: int = 0
    route_tables: int = 0
