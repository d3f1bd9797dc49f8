# SPDX-License-Identifier: Apache-2.0
"""Root file systems made from a distribution's packages, where no registry has a base to pull."""
