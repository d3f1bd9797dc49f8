# SPDX-License-Identifier: Apache-2.0
"""Connections summed up by who talked to whom, under the names that upstream's users know.

There are no more series than the mesh has pairs of workloads that talk, and never more than a
bound: whoever is not in the mesh is "-", and what is over the bound is summed up in one series of
which everything is "-". A series of which nothing was heard for long makes room for a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.model.mesh import Service, Workload
from runtime.tables.telemetry_layout import TcpFlow
from runtime.telemetry.directory import INBOUND, Directory, Parties
from runtime.telemetry.event import FAILED, OPENED, Fields

UNKNOWN = "-"
MOST_SERIES = 1000
IDLE_SECONDS = 600
_MOST_FLOWS = 16384  # remembered with their series

_SOURCE = (
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
)
_DESTINATION = tuple(name.replace("source", "destination") for name in _SOURCE)
_SERVICE = ("destination_service", "destination_service_namespace", "destination_service_name")
_POD = ("destination_pod_address", "destination_pod_namespace", "destination_pod_name")
_REST = {"request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "none"}
SERVICE_LABELS = ("reporter", *_SOURCE, *_SERVICE, *_DESTINATION, *_REST)
WORKLOAD_LABELS = ("reporter", *_SOURCE, *_POD, *_DESTINATION, *_REST)

# The field of a sum, the metric (upstream spells "conntections"), and what it is of one end.
_OF_SERVICES = (
    ("opened", "kmesh_tcp_connections_opened", "TCP connections opened to a service."),
    ("closed", "kmesh_tcp_connections_closed", "TCP connections to a service closed."),
    ("failed", "kmesh_tcp_conntections_failed", "TCP connections to a service that failed."),
    ("sent", "kmesh_tcp_sent_bytes", "Bytes that the reporting end sent."),
    ("received", "kmesh_tcp_received_bytes", "Bytes that the reporting end received."),
)
_OF_WORKLOADS = (
    ("opened", "kmesh_tcp_workload_connections_opened", "TCP connections opened to a workload."),
    ("closed", "kmesh_tcp_workload_connections_closed", "TCP connections to a workload closed."),
    (
        "failed",
        "kmesh_tcp_workload_conntections_failed",
        "TCP connections to a workload that failed.",
    ),
    ("sent", "kmesh_tcp_workload_sent_bytes", "Bytes that the reporting end sent."),
    ("received", "kmesh_tcp_workload_received_bytes", "Bytes that the reporting end received."),
    ("retransmissions", "kmesh_tcp_retrans", "Segments that the reporting end sent again."),
    ("lost", "kmesh_tcp_packet_loss", "Packets of the reporting end that were lost."),
)


class _Names(NamedTuple):
    """A series' name: the labels of everything that connections are told apart by."""

    reporter: str
    source: tuple[str, ...]
    destination: tuple[str, ...]
    service: tuple[str, ...]
    pod: tuple[str, ...]

    def of_service(self) -> tuple[str, ...]:
        return (self.reporter, *self.source, *self.service, *self.destination, *_REST.values())

    def of_workload(self) -> tuple[str, ...]:
        return (self.reporter, *self.source, *self.pod, *self.destination, *_REST.values())


@dataclass(slots=True)
class Sums:
    """What connections came to, together."""

    opened: int = 0
    closed: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0
    retransmissions: int = 0
    lost: int = 0
    heard: float = 0.0


_OVER = _Names(
    UNKNOWN, *((UNKNOWN,) * len(part) for part in (_SOURCE, _DESTINATION, _SERVICE, _POD))
)


class Counters(Collector):
    """Sums of connections, as metrics whenever asked.

    Args:
        directory: who has which address.
        most_series: beyond these, connections are summed up together.
        clock: seconds.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        most_series: int = MOST_SERIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._most = most_series
        self._clock = clock
        self._series: dict[_Names, Sums] = {}
        self._flows: dict[bytes, Sums] = {}
        self._version = -1
        self.events = 0
        self.lost: Callable[[], int] = lambda: 0
        self.lines_dropped: Callable[[], int] = lambda: 0
        self.folded = 0

    def take(self, events: Sequence[Fields]) -> None:
        """Count events."""
        now = self._clock()
        if self._version != self._directory.version or len(self._flows) > _MOST_FLOWS:
            self._flows.clear()
            self._version = self._directory.version
        flows = self._flows
        for flow, _, kind, _, _, _, retransmissions, lost, _, _, sent, received in events:
            sums = flows.get(flow)
            if sums is None:
                sums = flows[flow] = self._find(flow, now)
            sums.heard = now
            if kind == OPENED:
                sums.opened += 1
                continue
            if kind == FAILED:
                sums.failed += 1
            else:
                sums.closed += 1
            sums.sent += sent
            sums.received += received
            sums.retransmissions += retransmissions
            sums.lost += lost
        self.events += len(events)

    def _find(self, flow: bytes, now: float) -> Sums:
        unpacked = TcpFlow.unpack(flow)
        names = _names(unpacked, self._directory.parties(unpacked))
        sums = self._series.get(names)
        if sums is None and len(self._series) >= self._most and not self._make_room(now):
            self.folded += 1
            names = _OVER
            sums = self._series.get(names)
        if sums is None:
            sums = self._series[names] = Sums()
        return sums

    def _make_room(self, now: float) -> bool:
        """Forget the series of which nothing was heard for the longest time, if that is long."""
        oldest = min(self._series, key=lambda names: self._series[names].heard)
        if now - self._series[oldest].heard < IDLE_SECONDS:
            return False
        del self._series[oldest]
        self._flows.clear()
        return True

    def collect(self) -> Iterator[Metric]:
        """All metrics; may be called from any thread."""
        series = list(self._series.items())
        by_service = _summed((names.of_service(), sums) for names, sums in series)
        by_workload = _summed((names.of_workload(), sums) for names, sums in series)
        yield from _families(_OF_SERVICES, SERVICE_LABELS, by_service)
        yield from _families(_OF_WORKLOADS, WORKLOAD_LABELS, by_workload)
        yield from self._about_itself(len(series))

    def _about_itself(self, series: int) -> Iterator[Metric]:
        for name, text, value in (
            ("events", "Events of connections read from the kernel.", self.events),
            ("events_lost", "Events that the kernel had no room for.", self.lost()),
            (
                "flows_folded",
                "Times that there were too many series for one of its own.",
                self.folded,
            ),
            (
                "accesslog_lines_dropped",
                "Lines that nobody took in time.",
                self.lines_dropped(),
            ),
        ):
            yield CounterMetricFamily(f"kmesh_telemetry_{name}", text, value=value)
        yield GaugeMetricFamily("kmesh_telemetry_series", "Series of connections.", value=series)


def _summed(series: Iterable[tuple[tuple[str, ...], Sums]]) -> dict[tuple[str, ...], Sums]:
    """Sums by labels: series that differ in what the labels leave out come together."""
    found: dict[tuple[str, ...], Sums] = {}
    for labels, sums in series:
        total = found.setdefault(labels, Sums())
        for name in Sums.__slots__:
            setattr(total, name, getattr(total, name) + getattr(sums, name))
    return found


def _families(
    metrics: Iterable[tuple[str, str, str]],
    labels: tuple[str, ...],
    series: dict[tuple[str, ...], Sums],
) -> Iterator[Metric]:
    for field, name, text in metrics:
        family = CounterMetricFamily(name, text, labels=labels)
        for values, sums in series.items():
            family.add_metric(values, getattr(sums, field))
        yield family


def _names(flow: TcpFlow, parties: Parties) -> _Names:
    return _Names(
        reporter="destination" if flow.direction == INBOUND else "source",
        source=_workload(parties.source),
        destination=_workload(parties.destination),
        service=_service(parties.service),
        pod=_pod(parties.destination),
    )


def _workload(workload: Workload | None) -> tuple[str, ...]:
    if workload is None:
        return (UNKNOWN,) * len(_SOURCE)
    found = (
        workload.workload_name or workload.name,
        workload.canonical_name,
        workload.canonical_revision,
        workload.namespace,
        principal(workload),
        workload.canonical_name,
        workload.canonical_revision,
        workload.cluster,
    )
    return tuple(each or UNKNOWN for each in found)


def principal(workload: Workload) -> str:
    """The SPIFFE identity of a workload, "" when its account is not known."""
    if not workload.service_account:
        return ""
    place = f"{workload.trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}"
    return f"spiffe://{place}"


def _service(service: Service | None) -> tuple[str, ...]:
    if service is None:
        return (UNKNOWN,) * len(_SERVICE)
    return service.hostname, service.namespace or UNKNOWN, service.name or UNKNOWN


def _pod(workload: Workload | None) -> tuple[str, ...]:
    if workload is None:
        return (UNKNOWN,) * len(_POD)
    address = str(workload.addresses[0]) if workload.addresses else UNKNOWN
    return address, workload.namespace or UNKNOWN, workload.name or UNKNOWN
