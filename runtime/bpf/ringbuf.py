# SPDX-License-Identifier: Apache-2.0
"""A BPF ring buffer's reader: samples of one size, in their order, many at a time.

libbpf calls back for every sample, which from Python costs more than the sample is worth (measured:
4 microseconds an event against 1). So this reads the memory that the kernel shares, as
Documentation/bpf/ringbuf.rst describes it: a page with the reader's position, a page with the
writers', then the data, mapped twice in a row so that samples at the end run on.
"""

from __future__ import annotations

import mmap
import select
import threading
from itertools import takewhile

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap

HEADER = 8  # bytes before each sample: its length, and where its page is
_BUSY = 1 << 31  # reserved, and not yet submitted


class RingBuffer:
    """The one reader of a ring buffer; how far it has read is kept in the buffer itself.

    Args:
        ring: a map of type BPF_MAP_TYPE_RINGBUF; it may be closed afterwards.
        size: of every sample, bytes, a multiple of 8. Programs must never discard one.

    Raises:
        BpfError: it cannot be mapped into memory.
    """

    def __init__(self, ring: BpfMap, *, size: int) -> None:
        page = mmap.PAGESIZE
        try:
            self._mine = mmap.mmap(ring.fd, page)
            self._theirs = mmap.mmap(
                ring.fd, page + 2 * ring.max_entries, prot=mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise BpfError("cannot read a ring buffer", error.errno or 0) from error
        self._read = memoryview(self._mine)[:8].cast("Q")
        self._written = memoryview(self._theirs)[:8].cast("Q")
        self._data = memoryview(self._theirs)[page:]
        self._words = self._data.cast("I")
        self._step = HEADER + size
        self._mask = ring.max_entries - 1
        self._barrier = threading.Lock()
        self._poll = select.epoll()
        self._poll.register(ring.fd, select.EPOLLIN | select.EPOLLET)

    @property
    def wake_fd(self) -> int:
        """Becomes readable when a program woke the reader, until `woken` is called."""
        return self._poll.fileno()

    def woken(self) -> None:
        """Take note of having been woken."""
        self._poll.poll(0)

    def consume(self, limit: int) -> bytes:
        """The next samples, at most `limit` of them, each behind a header of HEADER bytes."""
        at, step = self._read[0], self._step
        count = min((self._written[0] - at) // step, limit)
        start = at & self._mask
        heads = self._words[start // 4 : (start + count * step) // 4 : step // 4].tolist()
        if count and max(heads) >= _BUSY:
            count = sum(1 for _ in takewhile(lambda head: head < _BUSY, heads))
        # What is behind a header is there once the header says so: read it after the header, which
        # some processors would not do without a release and an acquire in between.
        for _ in range(2):
            with self._barrier:
                pass
        data = bytes(self._data[start : start + count * step])
        self._read[0] = at + count * step
        return data

    def close(self) -> None:
        """Read no more. Idempotent."""
        for view in (self._read, self._written, self._words, self._data):
            view.release()
        self._poll.close()
        self._mine.close()
        self._theirs.close()
