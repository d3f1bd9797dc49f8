# SPDX-License-Identifier: Apache-2.0
"""A daemon from its first line to its last: whatever ends it, what it made is removed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from types import FrameType

from runtime import log
from runtime.launch.config import Config
from runtime.launch.daemon import Daemon

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = log.get("launch")


class _StopRequested(BaseException):
    """A signal came while the daemon was starting."""


class _Phase(Enum):
    SHIELDED = auto()
    INTERRUPTIBLE = auto()
    SERVING = auto()


class _Signals:
    """SIGTERM, SIGINT and SIGHUP, which mean another thing in each phase.

    While shielded (something is being made that must be known to be removed) a signal waits.
    While interruptible (compiling) it breaks that off. While serving, it ends the event loop. In
    the end it is ignored: the clearing away must not be interrupted.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._phase = _Phase.SHIELDED
        self._told = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        for number in _STOPPING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a child that the prober forked: it just ends
            os._exit(128 + number)
        first, self._told = not self._told, True
        if first:
            _log.info("%s: stopping", signal.Signals(number).name)
        if self._phase is _Phase.INTERRUPTIBLE:
            raise _StopRequested
        if self._phase is _Phase.SERVING and self._loop and self._stop:
            self._loop.call_soon_threadsafe(self._stop.set)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal break off what is done inside, also one that came before."""
        self._phase = _Phase.INTERRUPTIBLE
        try:
            if self._told:
                raise _StopRequested
            yield
        finally:
            self._phase = _Phase.SHIELDED

    def serving(self) -> asyncio.Event:
        """The event that a signal sets from now on; called within the event loop."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._phase = _Phase.SERVING
        if self._told:
            self._stop.set()
        return self._stop

    def shield(self) -> None:
        self._phase = _Phase.SHIELDED

    def ignore(self) -> None:
        """Nothing more can come in between, up to the very end of the process."""
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)


def run_daemon(config: Config) -> None:
    """Run a daemon until SIGTERM, SIGINT or SIGHUP.

    Raises:
        KmeshError: it could not be started; nothing is left behind, but what served before.
    """
    daemon, signals = Daemon(config), _Signals()
    keep = config.keep_datapath
    try:
        try:
            daemon.start(interruptible=signals.interruptible)
        except Exception:
            keep = keep or daemon.took_over  # what served before goes on serving
            raise
        try:
            asyncio.run(_serve(daemon, signals))
        except Exception:
            keep = True  # a fault of ours must not cut connections: the next daemon adopts them
            raise
    except _StopRequested:
        _log.debug("broken off while starting")
    finally:
        signals.ignore()
        daemon.stop(keep=keep)


async def _serve(daemon: Daemon, signals: _Signals) -> None:
    try:
        await daemon.serve(signals.serving())
    finally:
        signals.shield()
