# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API server: asked, followed and told, as plain JSON.

Only `client` imports the official library; the rest is handed something that speaks `Api`.
"""
