# SPDX-License-Identifier: Apache-2.0
"""The waypoint of a node: one unmodified Envoy, fed with the very resources that Istiod sent.

adapt       the little that is changed of a resource before Envoy gets it
ledger      what is offered, what Envoy has accepted, what it refuses and why
stream      one Envoy's stream: in which order it is told what
ads         the server of those streams, on a Unix socket
bootstrap   what Envoy is started with
"""
