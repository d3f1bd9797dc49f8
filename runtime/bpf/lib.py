# SPDX-License-Identifier: Apache-2.0
"""The shared library and the C signatures that Kmesh calls (libbpf 1.0 or later)."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_long, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from runtime.errors import KmeshError

_SONAME = "libbpf.so.1"
_LOG_CHARS = 1 << 20
_LIBBPF_DEBUG = 2  # enum libbpf_print_level

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_set_print": (c_void_p, (c_void_p,)),
    "libbpf_version_string": (c_char_p, ()),
    "libbpf_probe_bpf_prog_type": (c_int, (c_int, c_void_p)),
    "libbpf_probe_bpf_map_type": (c_int, (c_int, c_void_p)),
    "libbpf_bpf_prog_type_str": (c_char_p, (c_int,)),
    "libbpf_bpf_map_type_str": (c_char_p, (c_int,)),
    "libbpf_bpf_attach_type_str": (c_char_p, (c_int,)),
    "libbpf_prog_type_by_name": (c_int, (c_char_p, POINTER(c_int), POINTER(c_int))),
    # objects
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__open_mem": (c_void_p, (c_char_p, c_size_t, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__section_name": (c_char_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__type": (c_int, (c_void_p,)),
    "bpf_program__expected_attach_type": (c_int, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, ctypes.c_bool)),
    "bpf_program__insn_cnt": (c_size_t, (c_void_p,)),
    "bpf_program__insns": (c_void_p, (c_void_p,)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__type": (c_int, (c_void_p,)),
    "bpf_map__key_size": (c_uint32, (c_void_p,)),
    "bpf_map__value_size": (c_uint32, (c_void_p,)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__set_pin_path": (c_int, (c_void_p, c_char_p)),
    "bpf_map__reuse_fd": (c_int, (c_void_p, c_int)),
    "bpf_map__set_initial_value": (c_int, (c_void_p, c_void_p, c_size_t)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    # maps by descriptor
    "bpf_map_create": (c_int, (c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_delete_elem": (c_int, (c_int, c_void_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_freeze": (c_int, (c_int,)),
    "bpf_map_lookup_batch": (
        c_int,
        (c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p),
    ),
    "bpf_map_update_batch": (c_int, (c_int, c_void_p, c_void_p, POINTER(c_uint32), c_void_p)),
    "bpf_map_delete_batch": (c_int, (c_int, c_void_p, POINTER(c_uint32), c_void_p)),
    "bpf_prog_load": (c_int, (c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p)),
    # attaching, pinning
    "bpf_link_create": (c_int, (c_int, c_int, c_int, c_void_p)),
    "bpf_link_update": (c_int, (c_int, c_int, c_void_p)),
    "bpf_link_detach": (c_int, (c_int,)),
    "bpf_prog_attach": (c_int, (c_int, c_int, c_int, c_uint32)),
    "bpf_prog_detach2": (c_int, (c_int, c_int, c_int)),
    "bpf_prog_query": (
        c_int,
        (c_int, c_int, c_uint32, POINTER(c_uint32), POINTER(c_uint32), POINTER(c_uint32)),
    ),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "bpf_prog_get_next_id": (c_int, (c_uint32, POINTER(c_uint32))),
    "bpf_map_get_next_id": (c_int, (c_uint32, POINTER(c_uint32))),
    "bpf_link_get_next_id": (c_int, (c_uint32, POINTER(c_uint32))),
    "bpf_prog_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_map_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_link_get_fd_by_id": (c_int, (c_uint32,)),
    # BTF
    "btf__load_vmlinux_btf": (c_void_p, ()),
    "btf__parse": (c_void_p, (c_char_p, c_void_p)),
    "btf__parse_split": (c_void_p, (c_char_p, c_void_p)),
    "btf__new": (c_void_p, (c_void_p, c_uint32)),
    "btf__free": (None, (c_void_p,)),
    "btf__type_cnt": (c_uint32, (c_void_p,)),
    "btf__type_by_id": (c_void_p, (c_void_p, c_uint32)),
    "btf__name_by_offset": (c_char_p, (c_void_p, c_uint32)),
    "btf__find_by_name": (c_int, (c_void_p, c_char_p)),
    "btf__find_by_name_kind": (c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__resolve_size": (c_long, (c_void_p, c_uint32)),
    "btf__resolve_type": (c_int, (c_void_p, c_uint32)),
    "libbpf_strerror": (c_int, (c_int, c_char_p, c_size_t)),
    "btf__raw_data": (c_void_p, (c_void_p, POINTER(c_uint32))),
}

_FIRST_OF_LIBBPF = 4000
_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)


class _Capture(threading.local):
    """Where this thread's messages go: libbpf prints in the thread that called it."""

    into: list[str] | None = None
    buffer: ctypes.Array[ctypes.c_char] | None = None


_capture = _Capture()


def _reason(code: int) -> str:
    """An errno in words, libbpf's own (from 4000 on, see libbpf_legacy.h) as well."""
    if code < _FIRST_OF_LIBBPF:
        return os.strerror(code)
    text = ctypes.create_string_buffer(128)
    lib().libbpf_strerror(code, text, len(text))
    return text.value.decode(errors="replace")


class BpfError(KmeshError):
    """A libbpf call that failed.

    Attributes:
        errno: the kernel's errno, positive.
        log: what libbpf and the verifier said, empty when nothing was captured.
    """

    def __init__(self, what: str, code: int, *, log: str = "", hint: str | None = None) -> None:
        super().__init__(f"{what}: {_reason(code)}", hint=hint)
        self.errno = code
        self.log = log


def _log_buffer() -> ctypes.Array[ctypes.c_char]:
    """Room for one message: a verifier's log is one. Made once, as zeroing it takes longer than printing."""
    if _capture.buffer is None:
        _capture.buffer = ctypes.create_string_buffer(_LOG_CHARS)
    return _capture.buffer


def _on_print(level: int, template: bytes, arguments: int) -> int:
    """Format one message of libbpf's; it is dropped when nobody captures, and debug messages are."""
    if _capture.into is None or level >= _LIBBPF_DEBUG:
        return 0
    buffer = _log_buffer()
    length = ctypes.CDLL(None).vsnprintf(
        buffer, c_size_t(_LOG_CHARS), c_char_p(template), c_void_p(arguments)
    )
    _capture.into.append(buffer.value.decode(errors="replace"))
    return int(length)


# The library keeps this pointer: it must not be collected.
_print_callback = _PRINT(_on_print)


@cache
def lib() -> ctypes.CDLL:
    """The loaded library, with every signature declared.

    Raises:
        KmeshError: libbpf 1.x is not installed, or lacks a call that Kmesh needs.
    """
    try:
        library = ctypes.CDLL(_SONAME, use_errno=True)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise KmeshError(
            f"cannot use {_SONAME}: {error}", hint="install libbpf 1.0 or later (Debian: libbpf1)"
        ) from error
    library.libbpf_set_print(ctypes.cast(_print_callback, c_void_p))
    return library


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect what libbpf and the verifier say to this thread inside the block."""
    mine: list[str] = []
    outer, _capture.into = _capture.into, mine
    try:
        yield mine
    finally:
        _capture.into = outer


def check(result: int, what: str, *, log: str = "") -> int:
    """Return a call's non-negative result, or raise what its errno says.

    Raises:
        BpfError: the result is negative.
    """
    if result < 0:
        raise BpfError(what, -result, log=log)  # libbpf 1.x returns -errno
    return result
