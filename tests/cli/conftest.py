# SPDX-License-Identifier: Apache-2.0
"""The command lines are asked about a node with a real daemon."""

from __future__ import annotations

from tests.launch.conftest import node

__all__ = ["node"]
