# SPDX-License-Identifier: Apache-2.0
"""What all tests share: privileges looked at once, and said aloud where they are missing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.dataplane.fixtures", "tests.dataplane.enhanced_fixtures"]

# The same examples each time, so that a change is what makes a test fail; HYPOTHESIS_PROFILE=default
# looks for new ones.
settings.register_profile("repeatable", derandomize=True)
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
