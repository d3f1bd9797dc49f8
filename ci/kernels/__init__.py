# SPDX-License-Identifier: Apache-2.0
"""Kernels that Kmesh knows: fetched from Debian's packages, reduced to what a verdict needs."""
