# SPDX-License-Identifier: Apache-2.0
"""From the prober's verdict to a running daemon: choose a path, start it, serve it, end it cleanly."""
