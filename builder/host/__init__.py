# SPDX-License-Identifier: Apache-2.0
"""What the compile image does on any host: objects, packages and an image for exactly that kernel."""
