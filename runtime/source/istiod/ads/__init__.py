# SPDX-License-Identifier: Apache-2.0
"""Istiod's ADS as a source of HTTP: what a sidecar would be told, state of the world.

kinds           the four resource types
subscription    what is held of one type, and what each response changes
changes         changes that the consumer has not taken yet
source          all of it together, in the order that Istiod expects
"""
