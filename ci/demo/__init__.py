# SPDX-License-Identifier: Apache-2.0
"""`make demo`: Kmesh at work on this very machine, step by step, and nothing left of it."""
