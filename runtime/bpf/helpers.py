# SPDX-License-Identifier: Apache-2.0
"""Whether programs of a type may call a helper, by the kernel's own word.

libbpf 1.1 knows two wordings of a refusal, and takes that of newer kernels (6.18) for consent.
"""

from __future__ import annotations

import ctypes
import os
import struct

from runtime.bpf.lib import lib

_CALL, _EXIT = 0x85, 0x95
_REFUSALS = ("unknown func ", "invalid func ", "program of this type cannot use helper ")
_LOG = 4096


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("_btf_flags_device_version", ctypes.c_uint32 * 4),
        ("_attach_to", ctypes.c_uint32 * 3),
        ("_fd_array", ctypes.c_void_p),
        ("_func_info", ctypes.c_void_p),
        ("_func_info_counts", ctypes.c_uint32 * 2),
        ("_line_info", ctypes.c_void_p),
        ("_line_info_counts", ctypes.c_uint32 * 2),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_char_p),
    )


def may_call(program_type: int, number: int, *, attach_type: int = 0) -> bool:
    """Whether this kernel lets programs of a type call the helper of a number.

    Where this process may load nothing at all, the answer is yes: loading says why not.
    """
    code = struct.pack("<BBhiBBhi", _CALL, 0, 0, number, _EXIT, 0, 0, 0)
    said = ctypes.create_string_buffer(_LOG)
    options = _LoadOptions(
        sz=ctypes.sizeof(_LoadOptions),
        attempts=1,
        expected_attach_type=attach_type,
        log_level=1,
        log_size=_LOG,
        log_buf=ctypes.cast(said, ctypes.c_char_p),
    )
    handle = lib().bpf_prog_load(
        program_type, None, b"GPL", code, len(code) // 8, ctypes.byref(options)
    )
    if handle >= 0:
        os.close(handle)
        return True
    log = said.value.decode(errors="replace")
    return not any(refusal in log for refusal in _REFUSALS)
