# SPDX-License-Identifier: Apache-2.0
"""The chained CNI plugin `kmesh-cni`: its installation on the node, and the daemon's end of it.

The plugin is a small C program (`kmesh-cni.c`): the container runtime starts it once for each pod that
comes or goes. It hands its request to the daemon over a Unix socket, so that a pod is governed before its first process runs.
"""
