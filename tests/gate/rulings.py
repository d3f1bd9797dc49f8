# SPDX-License-Identifier: Apache-2.0
"""What a ruling says of a client: by the gate's own code, compiled for here, and by its words."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Self

from runtime.compile.gate import FLAGS
from runtime.model.mesh import IPAddress
from runtime.plan.client import Client
from runtime.tables.http_authorization import Decision
from runtime.tables.http_clients import ByClient, Ruling
from runtime.tables.http_ports import mapped
from runtime.tables.http_rulings import pack_ruling

_SOURCE = Path(__file__).parents[2] / "runtime/gate/ruling.c"


class Rulings:
    """runtime/gate/ruling.c as a library."""

    def __init__(self, code: ctypes.CDLL) -> None:
        self._code = code
        for name in ("ruling_allows", "ruling_is_whole", "ruling_can_read"):
            getattr(code, name).restype = ctypes.c_bool

    @classmethod
    def compile(cls, directory: Path) -> Self:
        target = directory / "ruling.so"
        subprocess.run(
            ["gcc", *FLAGS, "-shared", "-fPIC", str(_SOURCE), "-o", str(target)], check=True
        )
        return cls(ctypes.CDLL(str(target)))

    def allows(self, ruling: ByClient, client: Client) -> bool:
        return self.allows_at(ruling, client.address, client.principal)

    def allows_at(self, ruling: ByClient, address: IPAddress | None, name: str) -> bool:
        packed = pack_ruling(ruling)
        assert self.is_whole(packed)
        told = name.encode()
        where = mapped(address) if address else None
        found: bool = self._code.ruling_allows(packed, where, told, ctypes.c_size_t(len(told)))
        return found

    def is_whole(self, packed: bytes) -> bool:
        found: bool = self._code.ruling_is_whole(packed, ctypes.c_size_t(len(packed)))
        return found

    def can_read(self, name: bytes) -> bool:
        found: bool = self._code.ruling_can_read(name, ctypes.c_size_t(len(name)))
        return found


def decided(ruling: Ruling, client: Client) -> Decision:
    """What is decided of a client, by the meaning of the words."""
    if isinstance(ruling, Decision):
        return ruling
    return next(
        one.decision
        for one in ruling.verdicts
        if all(client.meets(each.condition) == each.wanted for each in one.senders)
    )
