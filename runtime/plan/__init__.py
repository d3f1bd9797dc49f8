# SPDX-License-Identifier: Apache-2.0
"""The capability compiler: where each route runs, in the kernel or at the waypoint, and why.

A pure function of the model and of what the path can do here. What the kernel does not route itself
it must still recognise, since the first route that matches decides: so each route keeps a place in the
order, and a match that takes at least the requests that its own would.

ability     what the path can do on this node, and its limits
planned     what comes out
clusters    whether a cluster's endpoints can be spoken to by the kernel
judge       one route
aliases     short names of services
planner     all of them
words       matches and actions for people
report      the plan as rows, for `kmeshctl routes`
"""
