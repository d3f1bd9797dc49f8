# SPDX-License-Identifier: Apache-2.0
"""libbpf for Python: objects, maps, links and BTF, over the C library that the kernel's authors keep.

Only `runtime.bpf.lib` opens the shared library. There is no maintained Python binding of libbpf 1.x,
so the few calls that Kmesh makes are declared there by hand.
"""
