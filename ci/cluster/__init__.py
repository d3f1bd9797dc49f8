# SPDX-License-Identifier: Apache-2.0
"""A real one-node Kubernetes from packages, in namespaces of its own: `make cluster`, `make cluster-down`.

etcd, containerd, runc and the CNI plugins are the distribution's; the control plane and the kubelet are
built from Kubernetes' Go module, once (`binaries`). All of it runs as the children of one process
(`machine`) that is first in a PID, a mount and a network namespace: when that process ends, so does
everything, with every mount, pin and route. No packet can leave: there is no way out but a loopback and pods.
"""
