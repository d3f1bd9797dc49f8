# SPDX-License-Identifier: Apache-2.0
"""The kernel side: maps, programs and links that live on while the daemon restarts.

All of it is pinned below one directory:

    <pins>/compat/<digest of the layout>/<map>     the service tables of one layout
    <pins>/compat/sockets/<map>-<its own digest>   what sockets carry, whatever the tables' layout
    <pins>/compat/links/<scope>/<program>          where programs run: an enrolled cgroup, or the root

A restarted daemon adopts the tables when the layout is its own; otherwise it fills new ones beside
them and turns the links over when they are whole.
"""
