# SPDX-License-Identifier: Apache-2.0
"""What connections came to: read from the kernel's ring buffer, named, summed up, written down."""
