# SPDX-License-Identifier: Apache-2.0
"""What all tests share: privileges looked at once, and said aloud where they are missing."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.dataplane.fixtures",
    "tests.dataplane.enhanced_fixtures",
    "tests.matrix.ahead",
]

# The same examples each time, so that a change is what makes a test fail; HYPOTHESIS_PROFILE=default
# looks for new ones.
# No deadline: a busy machine is no fault of the code.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Started in the background, or by nohup, signals are ignored, by all that is started from here too.
signal.signal(signal.SIGINT, signal.default_int_handler)
for ignored in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(ignored, signal.SIG_DFL)

CHECKOUT = Path(__file__).resolve().parent.parent


def _why_no_bpf() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError as error:
        return f"cannot read the capabilities held: {error}"
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    sys_admin, net_admin, bpf = 1 << 21, 1 << 12, 1 << 39
    if not effective & net_admin or not effective & (sys_admin | bpf):
        return "needs CAP_NET_ADMIN and CAP_SYS_ADMIN or CAP_BPF"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _why_no_bpf()
    if reason is None:
        return
    if "root" in os.environ.get("KMESH_REQUIRE", "").split():
        raise pytest.UsageError(
            f"KMESH_REQUIRE=root, and what needs root would be skipped: {reason}"
        )
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason=reason))


# Pools of an event loop or a library, which are waited for elsewhere; and watches of the API server,
# which end with the next thing that it says.
_OTHERS_THREADS = ("asyncio_", "pytest_timeout", "grpc", "source ")
_PATIENCE = 10.0  # seconds, for a thread that is about to end


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A thread that a test leaves behind takes signals, ports and time from those after it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _PATIENCE
    while left := [one for one in set(threading.enumerate()) - before if not _is_others(one)]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads are left running: {', '.join(map(_in_words, left))}")
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def log_is_put_back() -> Iterator[None]:
    """A command run within a test sets up the process's log: the next test would keep its every record."""
    before = [(one, one.level, one.propagate, one.handlers[:]) for one in _loggers()]
    yield
    for one in _loggers():
        one.setLevel(logging.NOTSET)
        one.propagate = True
        one.handlers.clear()
    for one, level, propagate, handlers in before:
        one.setLevel(level)
        one.propagate = propagate
        one.handlers[:] = handlers


def _loggers() -> list[logging.Logger]:
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "kmesh"]
    return [logging.getLogger(name) for name in names]


def _is_others(thread: threading.Thread) -> bool:
    # grpc.aio polls in one thread of the process, which it starts once and never ends.
    return thread.name.startswith(_OTHERS_THREADS) or "_poll_wrapper" in thread.name


def _in_words(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    where = traceback.extract_stack(frame)[-1] if frame else None
    return f"{thread.name} at {where.filename}:{where.lineno}" if where else thread.name


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The directory of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def objects(checkout: Path) -> Path:
    """The compiled BPF objects; `make test` compiles them first."""
    found = checkout / "build" / "bpf"
    assert (found / "manifest.json").is_file(), "no compiled objects: run `make bpf`"
    return found
