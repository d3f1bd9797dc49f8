# SPDX-License-Identifier: Apache-2.0
"""Kmesh at run time: probe the kernel, choose a path, launch it, control it."""
