# SPDX-License-Identifier: Apache-2.0
"""For how long an answer about a hostname may be believed.

Addresses come from the system's resolver, as a node's own rules (hosts files, search domains) hold; it
does not tell for how long. So DNS is asked beside it, for that alone: a name that DNS does not know, or
a DNS that does not answer, has no time of its own. dnspython is what others build on for this; glibc's
own res_query() would leave the parsing of DNS messages to us.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

_PATIENCE = 3.0  # seconds
_KINDS = ("A", "AAAA")


async def time_to_live(hostname: str, *, resolver: Resolver | None = None) -> float | None:
    """Seconds until the first of a name's addresses expires; None where DNS does not tell.

    Args:
        hostname: what is looked up, by the search domains of the system too.
        resolver: whom to ask, instead of the system's name servers.
    """
    from dns.asyncresolver import Resolver
    from dns.exception import DNSException
    from dns.resolver import Answer

    try:
        asked = resolver or Resolver()
    except DNSException:  # no name server is configured
        return None
    answers = await asyncio.gather(
        *(asked.resolve(hostname, kind, search=True, lifetime=_PATIENCE) for kind in _KINDS),
        return_exceptions=True,
    )
    # Of an alias too, which may point elsewhere before its target expires.
    found = [
        one.chaining_result.minimum_ttl
        for one in answers
        if isinstance(one, Answer) and one.rrset is not None
    ]
    return float(min(found)) if found else None
