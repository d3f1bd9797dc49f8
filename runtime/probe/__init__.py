# SPDX-License-Identifier: Apache-2.0
"""The prober: what this kernel can really do, with the evidence, and which mode follows from it."""
