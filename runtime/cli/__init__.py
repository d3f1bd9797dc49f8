# SPDX-License-Identifier: Apache-2.0
"""The commands `kmesh` (on the node, as root) and `kmeshctl` (asks the daemon)."""
