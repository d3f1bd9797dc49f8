# SPDX-License-Identifier: Apache-2.0
"""How often the kernel is waited for when tables are written, however many there are; and that nothing else is read."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runtime.bpf.lib import BpfError
from runtime.bpf.maps import ANY, BpfMap
from runtime.control.http import HttpControl
from runtime.control.view import View
from runtime.kernel import grace
from runtime.kernel.datapath import DataPath
from runtime.kernel.grace import THREADS, Write, write_at_once
from runtime.kernel.http_ports import HttpPorts
from runtime.model.http import (
    DirectResponse,
    HttpPort,
    Listener,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
)
from runtime.model.http_picture import HttpChange
from runtime.plan.ability import ability
from runtime.source.update import Update
from tests.dataplane.enhanced_stage import PORT, table

pytestmark = pytest.mark.root

Failed = dict[tuple[str, bytes], BpfError]
WritePart = Callable[[Sequence[Write]], Failed]
OUTER = ("http_grammars", "http_graphs", "http_texts", "http_answers", "http_rings")
TABLES = 100
# A table has three contents of its own; how many one part has where the kernel takes one a call.
LONGEST = -(-3 * TABLES // (THREADS - len(OUTER))) * 2


class Counted(BpfMap):
    """A map that knows how often each part has waited for it, and how often it was read whole.

    Parts are written at once. Not by threads: where waits are short, one has done its part before the next begins,
    and does that one's too.
    """

    part: ClassVar[threading.local] = threading.local()
    waits: ClassVar[Counter[object]] = Counter()
    readings: ClassVar[Counter[str]] = Counter()
    batches: ClassVar[bool] = True

    def _waited(self) -> None:
        if self.name in OUTER:
            Counted.waits[getattr(Counted.part, "now", None)] += 1

    def update(self, key: bytes | None, value: bytes, *, flags: int = ANY) -> None:
        BpfMap.update(self, key, value, flags=flags)
        self._waited()

    def delete(self, key: bytes) -> bool:
        self._waited()
        return BpfMap.delete(self, key)

    def update_batch(self, keys: bytes | bytearray, values: bytes | bytearray) -> int:
        self._check()
        done = BpfMap.update_batch(self, keys, values)
        self._waited()
        return done

    def delete_batch(self, keys: bytes | bytearray) -> None:
        self._check()
        BpfMap.delete_batch(self, keys)
        self._waited()

    def _check(self) -> None:
        """As 5.10 does: no batches of maps of maps."""
        if self.name in OUTER and not Counted.batches:
            raise BpfError("batch", errno.EOPNOTSUPP)

    def keys(self) -> Iterator[bytes]:
        Counted.readings[self.name] += 1
        return BpfMap.keys(self)

    def items(self, *, chunk: int = 4096) -> Iterator[tuple[bytes, bytes]]:
        Counted.readings[self.name] += 1
        return BpfMap.items(self, chunk=chunk)


def own_table(number: int, version: int = 0) -> RouteTable:
    """Its graph, texts and answers are like no other's."""
    mark = f"{number}-{version}"
    match = RouteMatch(PathMatch(PathKind.PREFIX, f"/{mark}"))
    return table(Route(match=match, action=DirectResponse(200, mark.encode())), name=f"t{number}")


class Mesh:
    def __init__(self, maps: Mapping[str, BpfMap]) -> None:
        self.maps = {name: Counted(**asdict(one)) for name, one in maps.items()}
        self.view = View()
        self.control = HttpControl(HttpPorts(self.maps), ability=ability())

    def bring(self, tables: Mapping[str, RouteTable], **more: Any) -> int:
        """The longest that a part waited, in waits."""
        Counted.waits.clear()
        Counted.readings.clear()
        update = Update(http=HttpChange(tables=tables, **more))
        self.view.take(update)
        assert self.control.program(update, self.view) == {}
        return max(Counted.waits.values())

    def first(self) -> int:
        ports = [
            HttpPort(listener=f"l{n}", address=ip_address(0x0A600000 + n), port=PORT, table=f"t{n}")
            for n in range(TABLES)
        ]
        listeners: dict[str, Listener | None] = {
            one.listener: Listener(name=one.listener, ports=(one,)) for one in ports
        }
        tables = {f"t{n}": own_table(n) for n in range(TABLES)}
        return self.bring(tables, listeners=listeners, complete=True)

    def held(self, name: str) -> int:
        return len(list(BpfMap.keys(self.maps[name])))


def written_by_part(part: Sequence[Write], write: WritePart = grace._write) -> Failed:
    if getattr(Counted.part, "now", None):  # one by one, where there are no batches
        return write(part)
    Counted.part.now = object()
    try:
        return write(part)
    finally:
        Counted.part.now = None


@pytest.fixture
def mesh(all_objects: Path, pins: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    monkeypatch.setattr(grace, "_write", written_by_part)
    path = DataPath.open(all_objects, pins=pins, path="enhanced")
    try:
        yield Mesh(path.maps)
    finally:
        Counted.batches = True
        path.destroy()


@pytest.mark.parametrize("batches", [True, False])
def test_many_tables_wait_together(mesh: Mesh, *, batches: bool) -> None:
    Counted.batches = batches
    assert mesh.first() <= LONGEST
    assert mesh.held("http_graphs") == mesh.held("http_texts") == TABLES
    again = mesh.bring({f"t{n}": own_table(n, 1) for n in range(TABLES)})
    assert again <= 2 * LONGEST, "what goes waits, too"
    assert mesh.held("http_graphs") == mesh.held("http_texts") == TABLES


def test_a_change_of_one_waits_once_and_once_for_what_goes(mesh: Mesh) -> None:
    mesh.first()
    held = {name: mesh.held(name) for name in (*OUTER, "http_routes")}
    mesh.bring({"t3": own_table(3, 1)})
    assert Counted.waits.total() <= 2 * 3
    # Nothing is listed to find what to remove. What answered stays a while.
    assert not Counted.readings
    held["http_answers"] += 1
    assert {name: mesh.held(name) for name in held} == held


def test_what_is_refused_is_named_and_the_rest_is_there(mesh: Mesh) -> None:
    outer = mesh.maps["http_texts"]
    inner = BpfMap.create_array("inner", value_size=8, count=1, flags=(1 << 12) | (1 << 10))
    other = BpfMap.create_array("other", value_size=4, count=1)
    try:
        keys = [number.to_bytes(8, "little") for number in range(1, 101)]
        writes = [
            Write(outer, key, other.fd if index % 7 == 0 else inner.fd)
            for index, key in enumerate(keys)
        ]
        failed = write_at_once(writes)
        assert failed.keys() == {(outer.name, key) for key in keys[::7]}
        assert {one.errno for one in failed.values()} == {errno.EINVAL}
        assert set(BpfMap.keys(outer)) == set(keys) - set(keys[::7])
        assert write_at_once(Write(outer, key, None) for key in keys) == {}, "gone is gone"
        assert not list(BpfMap.keys(outer))
    finally:
        inner.close()
        other.close()
