# SPDX-License-Identifier: Apache-2.0
"""One file per probe. Importing this package registers them all, in the order that reports show."""

from runtime.probe.checks import (  # noqa: I001 - the order of import is the report's
    bpf,
    privileges,
    cgroup2,
    bpffs,
    netns,
    btf,
    jit,
    memlock,
    kernel_memory,
    objects,
    helpers,
    kfuncs,
    kmesh_functions,
    programs,
    maps,
    fields,
    loading,
    compiler,
)

__all__ = [
    "bpf",
    "bpffs",
    "btf",
    "cgroup2",
    "compiler",
    "fields",
    "helpers",
    "jit",
    "kernel_memory",
    "kfuncs",
    "kmesh_functions",
    "loading",
    "maps",
    "memlock",
    "netns",
    "objects",
    "privileges",
    "programs",
]
