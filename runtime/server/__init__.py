# SPDX-License-Identifier: Apache-2.0
"""What the daemon answers: status on loopback, metrics, and a Unix socket for the operator's tools.

The loopback ports only tell. What changes something goes over the socket, which is root's alone.
"""
