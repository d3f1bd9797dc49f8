# SPDX-License-Identifier: Apache-2.0
"""The model: what a mesh is made of, free of any wire format.

Sources turn what they hear into these; the planner and the tables read nothing else.
The terms are Istio's workload API's: a service has addresses and ports, a workload has
addresses and says which services it serves, on which target port.
"""
