# SPDX-License-Identifier: Apache-2.0
"""What runs in a booted kernel. Each stage prints one line of JSON; the host makes a table of them."""
