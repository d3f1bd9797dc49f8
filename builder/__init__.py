# SPDX-License-Identifier: Apache-2.0
"""The image pipeline: what goes into which image, and why."""
