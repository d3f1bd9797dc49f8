# SPDX-License-Identifier: Apache-2.0
"""Benchmarks. What is compared takes turns, medians count, and ratios are what to look at."""
