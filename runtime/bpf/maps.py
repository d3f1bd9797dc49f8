# SPDX-License-Identifier: Apache-2.0
"""BPF maps: single elements as bytes, and batches packed end to end."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.bpf.lib import BpfError, check, lib

ANY, NOEXIST, EXIST = 0, 1, 2


_ARRAY = 2  # BPF_MAP_TYPE_ARRAY


class _CreateOptions(ctypes.Structure):
    """struct bpf_map_create_opts as far as libbpf 1.0 has it."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


class _MapInfo(ctypes.Structure):
    """The head of struct bpf_map_info (linux/bpf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


def _possible_cpus() -> int:
    """How many values an element of a per-CPU map has (Documentation/admin-guide/cputopology)."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
    return int(text.replace(",", "-").rsplit("-", 1)[-1]) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BpfMap:
    """A map that is open in this process; `close` it when its object does not own the descriptor."""

    name: str
    fd: int
    type: int
    key_size: int
    value_size: int
    max_entries: int

    @classmethod
    def from_fd(cls, fd: int) -> BpfMap:
        """Describe the map behind a descriptor, which the result takes over."""
        info = _MapInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
        check(result, "cannot describe a map")
        return cls(
            name=info.name.decode(),
            fd=fd,
            type=info.type,
            key_size=info.key_size,
            value_size=info.value_size,
            max_entries=info.max_entries,
        )

    @classmethod
    def pinned(cls, path: Path) -> BpfMap:
        """Open a pinned map.

        Raises:
            BpfError: nothing is pinned there, or it is not a map.
        """
        fd = check(lib().bpf_obj_get(os.fsencode(path)), f"cannot open the pinned map {path}")
        return cls.from_fd(fd)

    @classmethod
    def by_id(cls, number: int) -> BpfMap:
        """Open a map by its number.

        Raises:
            BpfError: there is none any more.
        """
        return cls.from_fd(check(lib().bpf_map_get_fd_by_id(number), f"cannot open map {number}"))

    @classmethod
    def create_array(cls, name: str, *, value_size: int, count: int, flags: int = 0) -> BpfMap:
        """Make an array map that belongs to nobody yet: whoever refers to it keeps it.

        Raises:
            BpfError: the kernel refused.
        """
        options = _CreateOptions(sz=ctypes.sizeof(_CreateOptions), map_flags=flags)
        fd = lib().bpf_map_create(
            _ARRAY, name.encode(), 4, value_size, count, ctypes.byref(options)
        )
        return cls.from_fd(check(fd, f"cannot create a map {name}"))

    def close(self) -> None:
        os.close(self.fd)

    def pin(self, path: Path) -> None:
        check(
            lib().bpf_obj_pin(self.fd, os.fsencode(path)), f"cannot pin map {self.name} at {path}"
        )

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key, or None. Per-CPU maps are not for this call."""
        value = ctypes.create_string_buffer(self.value_size)
        result = lib().bpf_map_lookup_elem(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        check(result, f"map {self.name}: lookup")
        return value.raw

    def lookup_sums(self, count: int) -> list[int]:
        """The first elements of a per-CPU array of 64-bit numbers, each summed up."""
        values = (ctypes.c_uint64 * _possible_cpus())()
        sums = []
        for index in range(count):
            result = lib().bpf_map_lookup_elem(self.fd, index.to_bytes(4, sys.byteorder), values)
            check(result, f"map {self.name}: lookup")
            sums.append(sum(values))
        return sums

    def lookup_each(self, key: bytes) -> list[bytes]:
        """The values of a key of a per-CPU map, whose size is a multiple of 8."""
        values = ctypes.create_string_buffer(_possible_cpus() * self.value_size)
        check(lib().bpf_map_lookup_elem(self.fd, key, values), f"map {self.name}: lookup")
        return [
            values.raw[at : at + self.value_size] for at in range(0, len(values), self.value_size)
        ]

    def update_each(self, key: bytes, value: bytes) -> None:
        """Give a key of a per-CPU map one value on all processors."""
        self.update(key, value * _possible_cpus())

    def update(self, key: bytes | None, value: bytes, *, flags: int = ANY) -> None:
        check(lib().bpf_map_update_elem(self.fd, key, value, flags), f"map {self.name}: update")

    def delete(self, key: bytes) -> bool:
        """Remove a key; False when it was not there."""
        result = lib().bpf_map_delete_elem(self.fd, key)
        if result == -errno.ENOENT:
            return False
        check(result, f"map {self.name}: delete")
        return True

    def keys(self) -> Iterator[bytes]:
        """Every key, by walking the map: for small maps, and kernels without batches."""
        key: bytes | None = None
        after = ctypes.create_string_buffer(self.key_size)
        while True:
            result = lib().bpf_map_get_next_key(self.fd, key, after)
            if result == -errno.ENOENT:
                return
            check(result, f"map {self.name}: next key")
            key = after.raw
            yield key

    def update_batch(self, keys: bytes | bytearray, values: bytes | bytearray) -> int:
        """Write many elements in one call.

        Args:
            keys: keys end to end, n * key_size bytes.
            values: their values end to end, n * value_size bytes.

        Returns:
            how many were written: all of them.

        Raises:
            BpfError: the kernel stopped on the way; `E2BIG` when the map is full.
        """
        total = len(keys) // self.key_size
        count = ctypes.c_uint32(total)
        key_array = (ctypes.c_char * len(keys)).from_buffer(bytearray(keys))
        value_array = (ctypes.c_char * len(values)).from_buffer(bytearray(values))
        result = lib().bpf_map_update_batch(
            self.fd, key_array, value_array, ctypes.byref(count), None
        )
        check(result, f"map {self.name}: {total} updates in a batch")
        return total

    def delete_batch(self, keys: bytes | bytearray) -> None:
        """Remove many keys, n * key_size bytes; keys that are not there are passed over."""
        offset, size = 0, self.key_size
        array = (ctypes.c_char * len(keys)).from_buffer(bytearray(keys))
        while offset < len(keys):
            count = ctypes.c_uint32((len(keys) - offset) // size)
            rest = ctypes.byref(array, offset)
            result = lib().bpf_map_delete_batch(self.fd, rest, ctypes.byref(count), None)
            if result == 0:
                return
            if result != -errno.ENOENT:
                check(result, f"map {self.name}: deletes in a batch")
            offset += (count.value + 1) * size

    def items(self, *, chunk: int = 4096) -> Iterator[tuple[bytes, bytes]]:
        """Every element of a hash or array map, read in batches of about `chunk`."""
        cursor = ctypes.create_string_buffer(max(self.key_size, 8))
        started = ended = False
        while not ended:
            keys = ctypes.create_string_buffer(chunk * self.key_size)
            values = ctypes.create_string_buffer(chunk * self.value_size)
            count = ctypes.c_uint32(chunk)
            after = ctypes.create_string_buffer(len(cursor))
            start = cursor if started else None
            result = lib().bpf_map_lookup_batch(
                self.fd, start, after, keys, values, ctypes.byref(count), None
            )
            if result == -errno.ENOSPC and chunk <= self.max_entries:
                chunk *= 4  # one hash bucket holds more than the batch
                continue
            ended = result == -errno.ENOENT
            if not ended:
                check(result, f"map {self.name}: read in batches")
            started, cursor = True, after
            yield from self._unpack(keys.raw, values.raw, count=count.value)

    def _unpack(self, keys: bytes, values: bytes, *, count: int) -> Iterator[tuple[bytes, bytes]]:
        for index in range(count):
            at, to = index * self.key_size, index * self.value_size
            yield keys[at : at + self.key_size], values[to : to + self.value_size]


__all__ = ["ANY", "EXIST", "NOEXIST", "BpfError", "BpfMap"]
