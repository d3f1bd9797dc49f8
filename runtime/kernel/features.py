# SPDX-License-Identifier: Apache-2.0
"""What this kernel has that the programs can use, and can do without (bpf/include/kmesh/drift.h)."""

from __future__ import annotations

import platform
from functools import cache

from runtime.bpf.attach import AttachType
from runtime.bpf.btf import Btf, Kind
from runtime.bpf.helpers import may_call
from runtime.bpf.lib import BpfError
from runtime.bpf.objects import BpfObject
from runtime.tables.layout import Config

CONFIG = ".rodata.config"  # the data section
_SOCK_ADDR = 18  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR
_SOCK_OPS = 13  # BPF_PROG_TYPE_SOCK_OPS
_GET_NETNS_COOKIE, _SET_RETVAL = 122, 187  # the numbers that the programs call


def _has_helper(name: str, number: int, program_type: int, attach_type: int) -> bool:
    """Whether a helper has this number, by the kernel's own word, and loads in this program type."""
    try:
        with Btf() as btf:
            kind = btf.find("bpf_func_id", Kind.ENUM)
            if kind is None or btf.enum(kind).get(f"BPF_FUNC_{name}") != number:
                return False
    except BpfError:
        return False  # no BTF: the number may mean something else here
    return may_call(program_type, number, attach_type=attach_type)


@cache
def config() -> Config:
    """The read-only data that the programs are loaded with."""
    return Config(
        can_set_retval=int(
            _has_helper("set_retval", _SET_RETVAL, _SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT)
        ),
        keeps_order=int(platform.machine() in {"x86_64", "i686"}),
    )


def configure(opened: BpfObject) -> None:
    """Give an object its configuration, before it is loaded."""
    opened.set_initial_value(CONFIG, config().pack())


def netns_in_sockops() -> bool:
    """Whether a sockops program can ask for the network namespace (5.15, 6cf1770d63dd)."""
    return _has_helper("get_netns_cookie", _GET_NETNS_COOKIE, _SOCK_OPS, AttachType.CGROUP_SOCK_OPS)
