# SPDX-License-Identifier: Apache-2.0
"""The compile image, tried on the roots of other distributions."""
