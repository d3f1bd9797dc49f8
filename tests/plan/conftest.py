# SPDX-License-Identifier: Apache-2.0
"""The kernel's matcher as a library, compiled for the tests."""

from __future__ import annotations

import pytest

from tests.plan.native import Matcher


@pytest.fixture(scope="session")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    return Matcher(tmp_path_factory.mktemp("native"))
