# SPDX-License-Identifier: Apache-2.0
"""The image that makes images: BPF sources, the whole toolchain and this pipeline, for any host with containers."""

from __future__ import annotations

from builder.bases import DEBIAN
from builder.recipes.recipe import Recipe, register
from builder.rootfs.debian import TOOLCHAIN_PACKAGES

COMPILE = register(
    Recipe(
        name="compile",
        repository="kmesh-build",
        title="Kmesh compile image",
        description="Compiles and inspects Kmesh's BPF objects for the host that it is run on",
        base=DEBIAN,
        entrypoint="kmesh-build",
        carries="sources, pipeline, clang, libbpf headers, bcc",
        toolchain=True,
        sources=True,
        builder=True,
        packages={"apt-get": ("libbpf1", "libstdc++6", "python3", *TOOLCHAIN_PACKAGES)},
    )
)
