# SPDX-License-Identifier: Apache-2.0
"""The commands of kmesh-build, one file each."""
