# SPDX-License-Identifier: Apache-2.0
"""The access log: one line a connection on standard output, as upstream writes it.

A thread of its own writes, so that whoever reads may be slow: what it does not take in time is
dropped and counted.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

from runtime.tables.telemetry_layout import TcpEvent, TcpFlow
from runtime.telemetry.directory import INBOUND, Directory, unpacked
from runtime.telemetry.event import Fields

_UNKNOWN = "-"
_WAITING = 64  # batches
_STATES = {1: "BPF_TCP_ESTABLISHED", 7: "BPF_TCP_CLOSE"}  # linux/bpf.h
_NS = 1_000_000_000


def line(event: TcpEvent, directory: Directory, *, boot_ns: int) -> str:
    """An event as a line of the access log.

    Args:
        event: what the kernel told.
        directory: who has which address.
        boot_ns: when CLOCK_MONOTONIC was 0, nanoseconds since the epoch.
    """
    flow = TcpFlow.unpack(event.flow)
    source, destination, service = directory.parties(flow)
    where = service or destination
    return (
        f"accesslog: {written_time(boot_ns + event.now_ns)} "
        f"src.addr={_end(flow.source, event.source_port)}, "
        f"src.workload={_or_unknown(source and source.name)}, "
        f"src.namespace={_or_unknown(source and source.namespace)}, "
        f"dst.addr={_end(flow.destination, flow.destination_port)}, "
        f"dst.service={_or_unknown(service and service.hostname)}, "
        f"dst.workload={_or_unknown(destination and destination.name)}, "
        f"dst.namespace={_or_unknown(where and where.namespace)}, "
        f"start_time={written_time(boot_ns + event.started_ns)}, "
        f"direction={'INBOUND' if flow.direction == INBOUND else 'OUTBOUND'}, "
        f"state={_STATES.get(event.state, str(event.state))}, "
        f"sent_bytes={event.sent}, received_bytes={event.received}, "
        f"packet_loss={event.lost}, retransmissions={event.retransmissions}, "
        f"srtt={event.smoothed_rtt_us}us, min_rtt={event.min_rtt_us}us, "
        f"duration={_trimmed((event.now_ns - event.started_ns) / 1e6)}ms"
    )


def _or_unknown(name: object) -> str:
    return str(name or _UNKNOWN)


def _end(address: bytes, port: bytes) -> str:
    ip = unpacked(address)
    return f"[{ip}]:{_port(port)}" if ip.version == 6 else f"{ip}:{_port(port)}"


def _port(port: bytes) -> int:
    return int.from_bytes(port, "big")


def written_time(ns: int) -> str:
    """As Go prints a time in UTC: nanoseconds, without zeros at the end."""
    seconds, rest = divmod(ns, _NS)
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{whole}{fraction} +0000 UTC"


def _trimmed(milliseconds: float) -> str:
    return f"{milliseconds:.6f}".rstrip("0").rstrip(".")


class AccessLog:
    """Writes lines while it is on.

    Args:
        directory: who has which address.
        stream: where to; standard output when it is None.

    Attributes:
        on: whether connections are written down; may be set from any thread.
        dropped: lines that nobody took in time.
    """

    def __init__(self, directory: Directory, *, stream: TextIO | None = None) -> None:
        self.on = False
        self.dropped = 0
        self._directory = directory
        self._stream = stream or sys.stdout
        self._batches: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def take(self, events: Sequence[Fields]) -> None:
        """Write events down, if it is on; never waits."""
        if not self.on or not events:
            return
        boot_ns = time.time_ns() - time.monotonic_ns()
        named = (TcpEvent(*each) for each in events)
        self.write([line(each, self._directory, boot_ns=boot_ns) for each in named])

    def write(self, lines: Sequence[str]) -> None:
        """Write lines; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="accesslog", daemon=True)
            self._thread.start()
        try:
            self._batches.put_nowait("".join(f"{each}\n" for each in lines))
        except queue.Full:
            self.dropped += len(lines)

    def _write(self) -> None:
        while (text := self._batches.get()) is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError:  # nobody reads any more
                self.dropped += text.count("\n")

    def close(self, *, seconds: float = 1.0) -> None:
        """Write what is waiting, as far as that is taken in time. Idempotent."""
        if self._thread is None:
            return
        try:
            self._batches.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)
        self._thread = None
