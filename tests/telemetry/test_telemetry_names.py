# SPDX-License-Identifier: Apache-2.0
"""Who is at the ends of a connection, what the sums are called, and the access log's line."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime.launch.telemetry import telemetry_decision
from runtime.model.mesh import ServicePort, Workload
from runtime.probe.verdict import Evidence, Finding, Level, Verdict
from runtime.source.update import Update
from runtime.tables.telemetry_layout import TcpEvent, TcpFlow
from runtime.telemetry.accesslog import AccessLog, line
from runtime.telemetry.counters import IDLE_SECONDS, Counters
from runtime.telemetry.directory import INBOUND, OUTBOUND, Directory, packed
from runtime.telemetry.event import CLOSED, FAILED, OPENED
from tests.tables.tables_model import service

SLEEP = Workload(
    uid="c//Pod/ns/sleep-1",
    name="sleep-1",
    namespace="ns",
    addresses=(ip_address("10.244.0.1"), ip_address("fd00:244::1")),
    service_account="sleeper",
    workload_name="sleep",
    canonical_name="sleep",
    canonical_revision="v1",
    cluster="Kubernetes",
)
ECHO = Workload(
    uid="c//Pod/shop/echo-1",
    name="echo-1",
    namespace="shop",
    addresses=(ip_address("10.244.0.2"),),
    services={"ns/a.ns.svc": (ServicePort(service_port=80, target_port=8080),)},
    workload_name="echo",
    canonical_name="echo",
)
A = replace(service("a", "10.96.0.1"), hostname="a.ns.svc")


def event(kind: int = CLOSED, **more: object) -> TcpEvent:
    flow: dict[str, object] = {
        "source": "10.244.0.1",
        "destination": "10.244.0.2",
        "service": "10.96.0.1",
        "direction": OUTBOUND,
    }
    flow |= {name: more.pop(name) for name in list(more) if name in flow}
    made = TcpEvent(
        flow=TcpFlow(
            source=_packed(flow["source"]),
            destination=_packed(flow["destination"]),
            service=_packed(flow["service"]),
            destination_port=(8080).to_bytes(2, "big"),
            service_port=(80).to_bytes(2, "big"),
            direction=int(str(flow["direction"])),
        ).pack(),
        source_port=(40000).to_bytes(2, "big"),
        kind=kind,
        state=1 if kind == OPENED else 7,
        smoothed_rtt_us=40,
        min_rtt_us=34,
        retransmissions=1,
        lost=2,
        started_ns=1_500_000_000,
        now_ns=3_230_000_000,
        sent=5,
        received=292,
    )
    return made._replace(**more)  # type: ignore[arg-type]


def _packed(address: object) -> bytes:
    return packed(ip_address(str(address))) if address else bytes(16)


def directory(*workloads: Workload) -> Directory:
    found = Directory()
    found.take(Update(services=(A,), workloads=workloads or (SLEEP, ECHO), complete=True))
    return found


def metrics(counters: Counters) -> dict[str, list[tuple[dict[str, str], float]]]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(counters)
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def test_the_access_log_line_is_upstreams() -> None:
    boot = 1_745_484_880_000_000_000
    assert line(event(), directory(), boot_ns=boot) == (
        "accesslog: 2025-04-24 08:54:43.23 +0000 UTC "
        "src.addr=10.244.0.1:40000, src.workload=sleep-1, src.namespace=ns, "
        "dst.addr=10.244.0.2:8080, dst.service=a.ns.svc, dst.workload=echo-1, dst.namespace=ns, "
        "start_time=2025-04-24 08:54:41.5 +0000 UTC, direction=OUTBOUND, state=BPF_TCP_CLOSE, "
        "sent_bytes=5, received_bytes=292, packet_loss=2, retransmissions=1, "
        "srtt=40us, min_rtt=34us, duration=1730ms"
    )


def test_the_line_of_who_is_not_in_the_mesh() -> None:
    told = event(
        OPENED,
        source="fd00::9",
        destination="192.0.2.1",
        service=None,
        direction=INBOUND,
        now_ns=1_500_050_001,
    )
    assert line(told, directory(), boot_ns=0) == (
        "accesslog: 1970-01-01 00:00:01.500050001 +0000 UTC "
        "src.addr=[fd00::9]:40000, src.workload=-, src.namespace=-, "
        "dst.addr=192.0.2.1:8080, dst.service=-, dst.workload=-, dst.namespace=-, "
        "start_time=1970-01-01 00:00:01.5 +0000 UTC, direction=INBOUND, "
        "state=BPF_TCP_ESTABLISHED, "
        "sent_bytes=5, received_bytes=292, packet_loss=2, retransmissions=1, "
        "srtt=40us, min_rtt=34us, duration=0.050001ms"
    )


def test_a_servers_end_finds_its_service_by_its_port() -> None:
    found = directory()
    inbound = TcpFlow.unpack(event(service=None, direction=INBOUND).flow)
    assert found.parties(inbound) == (SLEEP, ECHO, A)
    other = inbound._replace(destination_port=(9).to_bytes(2, "big"))
    assert found.parties(other) == (SLEEP, ECHO, None)


def test_the_directory_follows_changes() -> None:
    found, flow = directory(), TcpFlow.unpack(event().flow)
    before = found.version
    moved = replace(ECHO, addresses=(ip_address("10.244.0.3"),))
    found.take(Update(workloads=(moved, replace(SLEEP, uid="other", name="other"))))
    parties = found.parties(flow)
    assert (parties.source and parties.source.name, parties.destination) == ("other", None)
    assert found.version > before
    found.take(Update(removed_workloads=(SLEEP.uid,), removed_services=(A.key,)))
    parties = found.parties(flow)  # the address is the other's by now
    assert (parties.source and parties.source.name, parties.service) == ("other", None)
    found.take(Update(complete=True))
    assert found.parties(flow) == (None, None, None)


def test_sums_have_upstreams_names_and_labels() -> None:
    counters = Counters(directory())
    counters.take([event(OPENED), event(CLOSED), event(OPENED), event(CLOSED), event(FAILED)])
    found = metrics(counters)
    expected = {
        "kmesh_tcp_connections_opened_total": 2,
        "kmesh_tcp_connections_closed_total": 2,
        "kmesh_tcp_conntections_failed_total": 1,
        "kmesh_tcp_sent_bytes_total": 15,
        "kmesh_tcp_received_bytes_total": 876,
        "kmesh_tcp_workload_connections_opened_total": 2,
        "kmesh_tcp_workload_connections_closed_total": 2,
        "kmesh_tcp_workload_conntections_failed_total": 1,
        "kmesh_tcp_workload_sent_bytes_total": 15,
        "kmesh_tcp_workload_received_bytes_total": 876,
        "kmesh_tcp_retrans_total": 3,
        "kmesh_tcp_packet_loss_total": 6,
    }
    for name, value in expected.items():
        ((labels, got),) = found[name]
        assert got == value, name
    labels = found["kmesh_tcp_sent_bytes_total"][0][0]
    assert labels == {
        "reporter": "source",
        "source_workload": "sleep",
        "source_canonical_service": "sleep",
        "source_canonical_revision": "v1",
        "source_workload_namespace": "ns",
        "source_principal": "spiffe://cluster.local/ns/ns/sa/sleeper",
        "source_app": "sleep",
        "source_version": "v1",
        "source_cluster": "Kubernetes",
        "destination_service": "a.ns.svc",
        "destination_service_namespace": "ns",
        "destination_service_name": A.name,
        "destination_workload": "echo",
        "destination_canonical_service": "echo",
        "destination_canonical_revision": "-",
        "destination_workload_namespace": "shop",
        "destination_principal": "-",
        "destination_app": "echo",
        "destination_version": "-",
        "destination_cluster": "-",
        "request_protocol": "tcp",
        "response_flags": "-",
        "connection_security_policy": "none",
    }
    pod = found["kmesh_tcp_workload_sent_bytes_total"][0][0]
    assert pod["destination_pod_address"] == "10.244.0.2"
    assert pod["destination_pod_name"] == "echo-1"
    assert pod["destination_pod_namespace"] == "shop"


def test_strangers_share_one_series_and_a_rename_starts_another() -> None:
    found = directory()
    counters = Counters(found)
    counters.take([event(source=f"192.0.2.{n}", direction=INBOUND) for n in range(200)])
    ((labels, value),) = metrics(counters)["kmesh_tcp_connections_closed_total"]
    assert (labels["source_workload"], value) == ("-", 200)
    found.take(Update(workloads=(replace(ECHO, workload_name="renamed"),)))
    counters.take([event(direction=INBOUND)])
    names = {
        labels["destination_workload"]
        for labels, _ in metrics(counters)["kmesh_tcp_connections_closed_total"]
    }
    assert names == {"echo", "renamed"}


def test_services_sum_up_the_pods_behind_them() -> None:
    twin = replace(
        ECHO, uid="c//Pod/shop/echo-2", name="echo-2", addresses=(ip_address("10.244.0.4"),)
    )
    counters = Counters(directory(SLEEP, ECHO, twin))
    counters.take([event(), event(destination="10.244.0.4")])
    found = metrics(counters)
    assert [value for _, value in found["kmesh_tcp_sent_bytes_total"]] == [10]
    assert [value for _, value in found["kmesh_tcp_workload_sent_bytes_total"]] == [5, 5]


@dataclass
class Clock:
    now: float = 0.0
    workloads: list[Workload] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


def test_there_are_never_more_series_than_the_bound() -> None:
    clock = Clock()
    pods = [
        replace(
            SLEEP,
            uid=f"u{n}",
            name=f"p{n}",
            workload_name=f"w{n}",
            addresses=(ip_address(f"10.244.1.{n}"),),
        )
        for n in range(20)
    ]
    counters = Counters(directory(ECHO, *pods), most_series=5, clock=clock)
    counters.take([event(source=f"10.244.1.{n}") for n in range(20)])
    found = metrics(counters)
    closed = found["kmesh_tcp_connections_closed_total"]
    assert len(closed) == 6
    over = [value for labels, value in closed if labels["reporter"] == "-"]
    assert over == [15]
    assert found["kmesh_telemetry_flows_folded_total"] == [({}, 15)]
    clock.now = IDLE_SECONDS + 1
    counters.take([event(source="10.244.1.19")])
    closed = metrics(counters)["kmesh_tcp_connections_closed_total"]
    assert len(closed) == 6


def test_lost_events_are_a_metric() -> None:
    counters = Counters(directory())
    counters.lost = lambda: 7
    assert metrics(counters)["kmesh_telemetry_events_lost_total"] == [({}, 7)]


def test_the_access_log_is_off_until_it_is_on() -> None:
    stream = io.StringIO()
    log = AccessLog(directory(), stream=stream)
    log.take([event()])
    log.on = True
    log.take([event(OPENED), event()])
    log.on = False
    log.take([event()])
    log.close(seconds=10)
    lines = stream.getvalue().splitlines()
    assert [each.split("state=")[1].split(",")[0] for each in lines] == [
        "BPF_TCP_ESTABLISHED",
        "BPF_TCP_CLOSE",
    ]


class _Stuck(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait(30)
        return super().write(text)


def test_a_reader_who_takes_nothing_holds_nobody_up() -> None:
    stream = _Stuck()
    log = AccessLog(directory(), stream=stream)
    log.on = True
    for _ in range(200):
        log.take([event()])
    assert 200 - 66 <= log.dropped <= 200 - 64
    written = 200 - log.dropped
    stream.free.set()
    log.close(seconds=10)
    assert len(stream.getvalue().splitlines()) == written


def test_it_is_off_where_the_kernel_lacks_what_it_takes() -> None:
    def finding(verdict: Verdict) -> Finding:
        said = Evidence(level=Level.NAME, verdict=verdict, summary="not in this kernel: RINGBUF")
        return Finding(capability="maps.telemetry.telemetry", verdict=verdict, evidence=(said,))

    assert telemetry_decision([finding(Verdict.PRESENT)], wanted=True) == (True, "")
    on, reason = telemetry_decision([finding(Verdict.ABSENT)], wanted=True)
    assert not on
    assert reason == "maps.telemetry.telemetry is absent (not in this kernel: RINGBUF)"
    assert telemetry_decision([], wanted=False) == (False, "turned off (--no-telemetry)")
