# SPDX-License-Identifier: Apache-2.0
"""Where the way home within the kernel can be tried at all: no image carries it, and not every kernel takes it."""

from __future__ import annotations

import os

import pytest


def skip_where_home_is_refused() -> None:
    """5.10 and 6.1 refuse the object (EINVAL): responses go by the gate there."""
    if os.uname().release.startswith(("5.10.", "6.1.")):
        pytest.skip("this kernel refuses home.bpf.o, which no image carries")
