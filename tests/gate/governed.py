# SPDX-License-Identifier: Apache-2.0
"""The gate's own code for governed clusters, without sockets and maps (govern_shim.c)."""

from __future__ import annotations

import ctypes
import subprocess
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from runtime.compile.gate import FLAGS, LLHTTP_INCLUDE, include_options
from runtime.model.http import Cluster, Endpoints, HttpEndpoint
from runtime.tables.http_govern import Governed as Rows
from runtime.tables.http_govern import govern

_SHIM = Path(__file__).with_name("govern_shim.c")
_CHECKOUT = _SHIM.parents[2]
_PARTS = ("govern.c", "roster.c", "sets.c", "elect.c", "outlier.c", "hash.c")
_FIRST = int(IPv4Address("10.0.0.1"))


def rows_of(cluster: Cluster, *endpoints: HttpEndpoint, overprovisioning: int = 140) -> Rows:
    found = Endpoints(name="c", endpoints=endpoints, overprovisioning_percent=overprovisioning)
    governed = govern(cluster, found)
    assert governed
    return governed


def endpoint(number: int, **extra: Any) -> HttpEndpoint:
    """One of its own address, in the order of the numbers."""
    return HttpEndpoint(address=IPv4Address(_FIRST + number), port=80, **extra)


class Governed:
    """One cluster at a time, and its endpoints by their place among those that were made or written last."""

    def __init__(self, code: ctypes.CDLL) -> None:
        code.shim_share.restype = ctypes.c_double
        code.shim_pass.argtypes = [ctypes.c_uint64]
        self.code = code

    @classmethod
    def compile(cls, target: Path) -> Governed:
        sources = [_SHIM, *(_CHECKOUT / "runtime/gate" / one for one in _PARTS)]
        subprocess.run(
            ["gcc", *FLAGS, "-Wno-unused-parameter", "-Wno-sign-compare",
             "-Wno-missing-field-initializers", *include_options(_CHECKOUT), "-isystem", str(LLHTTP_INCLUDE),
             "-shared", "-fPIC", "-o", str(target), *map(str, sources)],
            check=True, cwd=_CHECKOUT,
        )  # fmt: skip
        return cls(ctypes.CDLL(str(target)))

    def make(self, cluster: Cluster, *endpoints: HttpEndpoint, overprovisioning: int = 140) -> None:
        """A cluster that nothing is known of, read whole."""
        rows = rows_of(cluster, *endpoints, overprovisioning=overprovisioning)
        self.code.shim_make(rows.row.pack(), b"".join(rows.members))

    def write(self, cluster: Cluster, *endpoints: HttpEndpoint) -> None:
        """The maps say this of the cluster from now on."""
        rows = rows_of(cluster, *endpoints)
        self.code.shim_write(rows.row.pack(), b"".join(rows.members))

    def answer(self, *statuses: int, endpoint: int = 0) -> None:
        for status in statuses:
            self.code.shim_answer(endpoint, status)

    def is_out(self, endpoint: int = 0) -> bool:
        return bool(self.code.shim_is_ejected(endpoint))

    def knows(self, endpoint: HttpEndpoint) -> bool:
        """Whether it is chosen from, as far as its health goes."""
        (member,) = rows_of(Cluster(name="c", max_requests_per_connection=1), endpoint).members
        return bool(self.code.shim_knows(member))
