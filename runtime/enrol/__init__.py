# SPDX-License-Identifier: Apache-2.0
"""Which pods of this node are governed, and keeping the kernel in step with that.

pod, namespace → decision (`decide`) → where the pod is in the kernel (`places`) → the data path, and only
then the annotation that says so (`enrolment`). What happens is told by watches and by the CNI plugin.
"""
