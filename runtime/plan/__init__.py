# SPDX-License-Identifier: Apache-2.0
"""From the model to what runs where: what the kernel takes, what a proxy has to, and why."""
