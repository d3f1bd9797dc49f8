# SPDX-License-Identifier: Apache-2.0
"""What maps a compiled object has and how their keys and values are laid out, from its BTF.

The layout module is generated from this, and the data path compares it with the objects that it is
about to load: bytes are never written into a map that another version laid out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.bpf.btf import Btf, Kind
from runtime.errors import KmeshError

_TYPEDEF = 8
_SK_STORAGE, _SOCKHASH = 24, 18  # BPF_MAP_TYPE_…
_POINTER, _ARRAY, _STRUCT, _INT = Kind.PTR, Kind.ARRAY, Kind.STRUCT, Kind.INT
# Structs that no map holds: read-only data, what comes out of ring buffers, values of inner maps.
_RECORDS = (
    "kmesh_config", "kmesh_http_cell", "kmesh_http_head", "kmesh_http_move", "kmesh_http_outcome",
    "kmesh_http_set", "kmesh_tcp_event", "kmesh_tcp_flow",
)  # fmt: skip
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class LayoutError(KmeshError):
    """A type that maps must not hold: its bytes would not be the same everywhere."""


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a struct.

    Attributes:
        name: the member's name.
        code: its format in the `struct` module; "16s" for what is in network order or a struct by
            itself, "4x" for padding.
        count: values that it yields: 0 for padding, more than 1 for an array.
    """

    name: str
    code: str
    count: int


@dataclass(frozen=True, slots=True)
class Struct:
    name: str
    size: int
    fields: tuple[Field, ...]

    @property
    def format(self) -> str:
        return "=" + "".join(field.code for field in self.fields)


@dataclass(frozen=True, slots=True)
class MapLayout:
    """A map as the object declares it.

    `key` and `value` name structs; they are "" for plain types, and stand for the whole shape where
    no one but the programs reads them.
    """

    name: str
    type: int
    flags: int
    max_entries: int
    key: str
    value: str

    @property
    def is_per_socket(self) -> bool:
        """Whether it holds sockets, or hangs on them: nobody could fill another in its place."""
        return self.type in (_SK_STORAGE, _SOCKHASH)


@dataclass(frozen=True, slots=True)
class Layout:
    """The maps of a set of objects, and the structs in them."""

    maps: tuple[MapLayout, ...]
    structs: tuple[Struct, ...]

    @property
    def digest(self) -> str:
        """Stands for the tables but for their sizes, which a loader may change."""
        shapes = [_shape(one) for one in self.maps if not one.is_per_socket]
        return _digest((shapes, self.structs))

    @property
    def socket_digests(self) -> dict[str, str]:
        """Stands for each map that holds what sockets carry: it outlives a change of the tables.

        What the programs of a socket map's sockets know of these is in their storage: a map of sockets
        can be taken over only together with that.
        """
        stored = [_shape(one) for one in self.maps if one.type == _SK_STORAGE]
        return {
            one.name: _digest((_shape(one), stored if one.type == _SOCKHASH else ()))
            for one in self.maps
            if one.is_per_socket
        }


def _shape(one: MapLayout) -> tuple[object, ...]:
    return (one.name, one.type, one.flags, one.key, one.value)


def _digest(shapes: object) -> str:
    return hashlib.sha256(repr(shapes).encode()).hexdigest()


def _in_full(btf: Btf, number: int) -> str:
    """A type with all that it is made of: offset and size of every member."""
    number = btf.resolve(number)
    kind = btf.kind(number)
    if kind == _ARRAY:
        element, length = btf.array(number)
        return f"{length} x {_in_full(btf, element)}"
    if kind != _STRUCT:
        return f"{btf.size(number)} bytes"
    members = (f"{at} {name} {_in_full(btf, of)}" for name, of, at in btf.members(number))
    return f"{btf.name(number)} of {btf.size(number)} bytes: {{{', '.join(members)}}}"


def _is_network_order(btf: Btf, number: int) -> bool:
    while btf.kind(number) == _TYPEDEF:
        if btf.name(number).startswith("__be"):
            return True
        number = btf.target(number)
    return False


def _field(btf: Btf, name: str, number: int) -> Field:
    size = btf.size(number)
    if name.startswith("pad"):
        return Field(name, f"{size}x", 0)
    element, length = number, 1
    if btf.kind(btf.resolve(number)) == _ARRAY:
        element, length = btf.array(btf.resolve(number))
    if _is_network_order(btf, element) or btf.kind(btf.resolve(number)) == _STRUCT:
        return Field(name, f"{size}s", 1)
    width = btf.size(element)
    if width == 1 and length > 1:
        return Field(name, f"{size}s", 1)  # a string of bytes has no order
    if btf.kind(btf.resolve(element)) != _INT or width not in _CODES:
        raise LayoutError(f"member {name} is no integer and no array of integers")
    return Field(name, (str(length) if length > 1 else "") + _CODES[width], length)


def _struct(btf: Btf, number: int) -> Struct:
    fields, end = [], 0
    name = btf.name(number)
    for member, kind, bits in btf.members(number):
        if bits != end * 8:
            raise LayoutError(f"struct {name} has a hole before {member}: fill it with a pad field")
        fields.append(_field(btf, member, kind))
        end += btf.size(kind)
    if end != btf.size(number):
        raise LayoutError(f"struct {name} has a hole at its end: fill it with a pad field")
    return Struct(name, end, tuple(fields))


def _declared(btf: Btf, number: int) -> Iterator[tuple[str, int]]:
    """The attributes of a map definition: each is a pointer to what it means."""
    for name, kind, _bits in btf.members(number):
        if btf.kind(kind) == _POINTER:
            yield name, btf.target(kind)


def _map(btf: Btf, variable: int, *, structs: dict[str, Struct]) -> MapLayout | None:
    kind = btf.resolve(btf.target(variable))
    if btf.kind(kind) != _STRUCT:
        return None
    attributes = dict(_declared(btf, kind))
    if "type" not in attributes:
        return None
    numbers = {
        name: btf.array(attributes[name])[1] if name in attributes else 0
        for name in ("type", "map_flags", "max_entries")
    }
    names = {"key": "", "value": ""}
    for part in names:
        held = btf.resolve(attributes[part]) if part in attributes else 0
        if numbers["type"] == _SK_STORAGE:
            names[part] = _in_full(btf, held)  # for programs only: any shape will do
        elif held and btf.kind(held) == _STRUCT:
            struct = _struct(btf, held)
            structs[struct.name] = struct
            names[part] = struct.name
    return MapLayout(
        name=btf.name(variable),
        type=numbers["type"],
        flags=numbers["map_flags"],
        max_entries=numbers["max_entries"],
        **names,
    )


def _describe_one(path: Path, maps: dict[str, MapLayout], structs: dict[str, Struct]) -> None:
    with Btf(path) as btf:
        for number in range(1, len(btf)):
            if btf.kind(number) != Kind.VAR:
                continue
            found = _map(btf, number, structs=structs)
            if found is None:
                continue
            if maps.setdefault(found.name, found) != found:
                raise LayoutError(f"{path.name}: map {found.name} differs from another object's")
        for name in _RECORDS:
            record = btf.find(name, Kind.STRUCT)
            if record is not None:
                structs[name] = _struct(btf, record)


def describe(objects: Iterable[Path]) -> Layout:
    """Read the maps of some objects, which share them by name.

    Args:
        objects: compiled objects with BTF.

    Raises:
        BpfError: an object cannot be read.
        LayoutError: two objects declare a map differently, or a struct has holes.
    """
    maps: dict[str, MapLayout] = {}
    structs: dict[str, Struct] = {}
    for path in sorted(objects):
        _describe_one(path, maps, structs)
    return Layout(
        maps=tuple(maps[name] for name in sorted(maps)),
        structs=tuple(structs[name] for name in sorted(structs)),
    )
