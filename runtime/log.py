# SPDX-License-Identifier: Apache-2.0
"""Log lines on standard error: `2026-01-31T12:00:00.123Z INFO  area: message`.

An area is a part of Kmesh ("launch", "control", "source.files"); each has a level of its own,
which can be changed while the daemon runs.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

_ROOT = "kmesh"
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
LEVELS = ("debug", "info", "warning", "error")


class _Formatter(logging.Formatter):
    """One line a record, in UTC; the level is coloured on a terminal only."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        area = record.name.removeprefix(_ROOT + ".")
        line = f"{_timestamp(record)} {self._level(record)} {area}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    def _level(self, record: logging.LogRecord) -> str:
        name = f"{'WARN' if record.levelno == logging.WARNING else record.levelname:<5}"
        code = _COLOURS.get(record.levelname)
        return f"\033[{code}m{name}\033[0m" if self._colour and code else name


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def get(area: str) -> logging.Logger:
    """The logger of an area, such as "launch" or "source.files"."""
    return logging.getLogger(f"{_ROOT}.{area}")


def setup(level: str = "info", *, stream: TextIO | None = None) -> None:
    """Send Kmesh's log to a stream (standard error) from a level upwards; may be called again."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(_Formatter(colour=target.isatty()))
    root = logging.getLogger(_ROOT)
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())


def levels() -> dict[str, str]:
    """Every area that has logged or has a level of its own, and the level it logs from."""
    names = sorted(name for name in logging.root.manager.loggerDict if name.startswith(_ROOT))
    return {
        name.removeprefix(_ROOT + "."): logging.getLevelName(
            logging.getLogger(name).getEffectiveLevel()
        ).lower()
        for name in names
    }


def set_level(area: str, level: str) -> None:
    """Change from which level an area logs; the area "kmesh" is all of them.

    Raises:
        ValueError: no such level or area.
    """
    if level not in LEVELS:
        raise ValueError(f"no log level {level!r}: it is one of {', '.join(LEVELS)}")
    if area not in levels():
        raise ValueError(f"no log area {area!r}: it is one of {', '.join(levels())}")
    logging.getLogger(area if area == _ROOT else f"{_ROOT}.{area}").setLevel(level.upper())
