# SPDX-License-Identifier: Apache-2.0
"""Other kernels than the running one: booted in QEMU, with this checkout inside."""
