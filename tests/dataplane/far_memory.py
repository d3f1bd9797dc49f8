# SPDX-License-Identifier: Apache-2.0
"""Memory that is not there until it is brought: whoever reads it waits, the kernel too (userfaultfd(2))."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import select
import struct

_SYSCALL = {"x86_64": 323, "aarch64": 282}.get(platform.machine(), 0)
_API = 0xAA
_UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03
_MISSING = 1  # UFFDIO_REGISTER_MODE_MISSING
_libc = ctypes.CDLL(None, use_errno=True)


class FarMemory:
    """A page of it.

    Args:
        data: what it will hold, at most a page.

    Raises:
        OSError: the kernel has no such thing (ENOSYS), or not for this process.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data.ljust(mmap.PAGESIZE, b"\0")
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self.size = len(data)
        self._fd = _libc.syscall(_SYSCALL, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno() or errno.ENOSYS, "userfaultfd")
        self._control(_UFFDIO_API, struct.pack("=QQQ", _API, 0, 0))
        where = struct.pack("=QQQQ", self.address, mmap.PAGESIZE, _MISSING, 0)
        self._control(_UFFDIO_REGISTER, where)

    def _control(self, request: int, argument: bytes) -> None:
        fcntl.ioctl(self._fd, request, bytearray(argument))

    def wait_until_wanted(self, seconds: float) -> bool:
        """Until somebody waits for it."""
        return bool(select.select([self._fd], [], [], seconds)[0])

    def bring(self) -> None:
        source = ctypes.create_string_buffer(self._data, mmap.PAGESIZE)
        at = ctypes.addressof(source)
        self._control(_UFFDIO_COPY, struct.pack("=QQQQq", self.address, at, mmap.PAGESIZE, 0, 0))

    def close(self) -> None:
        os.close(self._fd)  # who still waits gets an empty page
