# SPDX-License-Identifier: Apache-2.0
"""Reading the ring buffer: in slices, so that nothing else in the event loop has to wait.

Programs wake the reader only when much is waiting; otherwise it looks now and then. So a thousand
connections a second cost a few wake-ups, and an idle node next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from struct import Struct

from runtime.bpf.maps import BpfMap
from runtime.bpf.ringbuf import HEADER, RingBuffer
from runtime.tables import telemetry_layout
from runtime.telemetry.event import Fields

_SLICE = 512  # events at a time: under a millisecond, without the access log
_LOOK_SECONDS = 0.25
_PAUSE_SECONDS = 0.05  # between looks while much arrives: larger slices cost less an event
_EVENT = telemetry_layout._TCP_EVENT  # noqa: SLF001 - the generated module is this one's own
_RECORD = Struct(f"={HEADER}x{_EVENT.format.lstrip('=')}")

Take = Callable[[Sequence[Fields]], None]


class Reader:
    """Hands the events of a ring buffer on until cancelled.

    Args:
        ring: the ring buffer.
        take: is given the events of a slice, in their order.
    """

    def __init__(self, ring: BpfMap, take: Take) -> None:
        self._ring = RingBuffer(ring, size=_EVENT.size)
        self._take = take

    def read(self, limit: int = _SLICE) -> int:
        """Hand one slice on; how many events it had."""
        events = list(_RECORD.iter_unpack(self._ring.consume(limit)))
        self._take(events)
        return len(events)

    async def run(self) -> None:
        """Hand on what comes, for ever; the loop runs between two slices."""
        while True:
            more = self.read() == _SLICE
            await asyncio.sleep(0 if more else _PAUSE_SECONDS)
            if not more:
                await self._woken()

    async def _woken(self) -> None:
        """Wait until much is waiting, or a while has passed."""
        # Not asyncio.wait_for, which loses a cancellation that comes with the event (before 3.12).
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._ring.wake_fd, woken.set)
        timer = loop.call_later(_LOOK_SECONDS, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()
            loop.remove_reader(self._ring.wake_fd)
            self._ring.woken()

    def drain(self, *, most: int = 100_000) -> None:
        """Hand on what is there, in the end."""
        while most > 0 and (count := self.read()):
            most -= count

    def close(self) -> None:
        self._ring.close()
