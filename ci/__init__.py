# SPDX-License-Identifier: Apache-2.0
"""What keeps the project honest: set-up, known kernels, the demo, and what runs in CI."""
