# SPDX-License-Identifier: Apache-2.0
"""Who serves no HTTP pays nothing for it: not a module of it is imported at the start."""

from __future__ import annotations

import subprocess
import sys

_START = """
import sys
import runtime.cli.run
import runtime.launch.daemon
import runtime.source.files
import runtime.source.istiod.mesh
print(*[name for name in sys.modules if name.startswith(
    ("runtime.model.http", "runtime.plan", "runtime.source.envoy", "runtime.source.istiod.ads",
     "runtime.source.gateway", "runtime.source.recorded"))])
"""


def test_a_start_without_http_imports_none_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _START], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
