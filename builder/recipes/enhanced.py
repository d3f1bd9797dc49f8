# SPDX-License-Identifier: Apache-2.0
"""The image for openEuler and other kernels known at build time: prebuilt objects, no compiler, small."""

from __future__ import annotations

from builder.bases import OPENEULER
from builder.recipes.recipe import Recipe, register

ENHANCED = register(
    Recipe(
        name="enhanced",
        repository="kmesh-enhanced",
        title="Kmesh for openEuler",
        description="Service mesh data plane in the kernel, prebuilt for kernels known at build time",
        base=OPENEULER,
        entrypoint="kmesh",
        carries="objects",
        packages={
            "dnf": ("libbpf", "libstdc++", "python3"),
            "apt-get": ("libbpf1", "libstdc++6", "python3"),
        },
    )
)
