# SPDX-License-Identifier: Apache-2.0
"""Compiled BPF objects as files: where they are, and what each needs of a kernel.

Nothing here asks a kernel: an object is read as ELF and BTF, so that the image builder and the
offline prober can judge it anywhere.
"""
