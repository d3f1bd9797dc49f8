# SPDX-License-Identifier: Apache-2.0
"""Short names of services as hosts: `reviews`, as a client in the service's own namespace writes it.

Istiod tells them only to a proxy of that namespace, and the daemon, which asks for all clients of its
node, is in another. A short name is added where one virtual host of a table alone can be meant;
where services of several namespaces have the same name, it stays as it is: no guess is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from runtime.model.http import RouteTable
from runtime.model.mesh import Service


def short_names(services: Iterable[Service]) -> dict[str, str]:
    """The short name of each service that has one, by its hostname in lower case."""
    found = {}
    for service in services:
        hostname = service.hostname.lower()
        if hostname.startswith(f"{service.name}.{service.namespace}.svc.".lower()):
            found[hostname] = service.name.lower()
    return found


def aliases(table: RouteTable, names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Domains to add to virtual hosts, by the host's name.

    Args:
        table: where they are to be added.
        names: the short name of each hostname.
    """
    taken = {domain.lower() for host in table.virtual_hosts for domain in host.domains}
    wanted: defaultdict[str, set[str]] = defaultdict(set)  # short name → virtual hosts
    for host in table.virtual_hosts:
        for domain in host.domains:
            name = names.get(domain.lower())
            if name is not None and name not in taken:
                wanted[name].add(host.name)
    added: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, hosts in sorted(wanted.items()):
        if len(hosts) == 1:
            added[next(iter(hosts))] += (name,)
    return dict(added)
