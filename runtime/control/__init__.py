# SPDX-License-Identifier: Apache-2.0
"""From a source's updates to the kernel's tables, and what is known about it at any time."""
