# SPDX-License-Identifier: Apache-2.0
"""Sources: where configuration comes from. Each turns what it hears into the model."""
