# SPDX-License-Identifier: Apache-2.0
"""One process at a time works on a directory of pins; the lock ends with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from runtime.errors import KmeshError


class InUseError(KmeshError):
    """Another process works on these pins."""


def lock_pins(pins: Path) -> int:
    """Lock a directory of pins.

    Returns:
        a descriptor that holds the lock until it is closed.

    Raises:
        InUseError: another process holds it.
        KmeshError: it may not be opened.
    """
    try:
        handle = os.open(pins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KmeshError(f"cannot open {pins}: {error.strerror}", hint="run as root") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise InUseError(
            f"another process runs the data path pinned at {pins}",
            hint="stop it first, or use another directory for pins",
        ) from error
    return handle
