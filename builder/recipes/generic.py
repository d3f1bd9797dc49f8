# SPDX-License-Identifier: Apache-2.0
"""The image for every host: prebuilt objects, and all that compiling online at start-up takes."""

from __future__ import annotations

from builder.bases import DEBIAN
from builder.recipes.recipe import Recipe, register
from builder.rootfs.debian import TOOLCHAIN_PACKAGES

GENERIC = register(
    Recipe(
        name="generic",
        repository="kmesh",
        title="Kmesh",
        description="Service mesh data plane in the kernel: probes its host and runs the best path there",
        base=DEBIAN,
        entrypoint="kmesh",
        carries="objects, sources, clang, libbpf headers, bcc",
        toolchain=True,
        sources=True,
        packages={"apt-get": ("libbpf1", "libstdc++6", "python3", *TOOLCHAIN_PACKAGES)},
    )
)
