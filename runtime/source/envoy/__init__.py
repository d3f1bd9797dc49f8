# SPDX-License-Identifier: Apache-2.0
"""Envoy's resources to the model of HTTP.

messages            the wire's message types, made when the first of them is needed
whitelist           reading a message so that no field that is set goes by unseen
match, action, retry, route     route configurations
filters, fault, rate_limit, rbac, listener      listeners and their HTTP filters
cluster, transport, endpoint    where requests go
decode              one resource of any of the four types

What cannot be expressed goes to `beyond` of the thing that it is said of, with the field's name. A
field is passed over only where it stands in a list of those that make no difference to the client
and the server of a request: what is for tracing, statistics, logs, and the proxy's own memory.
"""
