# SPDX-License-Identifier: Apache-2.0
"""What inspection reads from real objects, and how it refuses what is none."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from runtime.bpf.lib import lib
from runtime.bpf.objects import BpfObject
from runtime.objects.inspect import HelperUse, ObjectError, inspect_object

TINY = 'SEC("sk_msg") int f(void *ctx) { return 1; }\n'
HEAD = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
LICENSED = HEAD + 'char LICENSE[] SEC("license") = "GPL";\n'


def test_programs_with_their_subprograms(sample: Path) -> None:
    info = inspect_object(sample)
    programs = {program.name: program for program in info.programs}
    assert set(programs) == {"route", "connect4"}
    route = programs["route"]
    assert (route.section, route.type, route.attach_type) == ("sk_msg", "SK_MSG", "SK_MSG_VERDICT")
    assert route.helpers == (
        HelperUse(1, "map_lookup_elem"),  # called by the subprogram alone
        HelperUse(71, "msg_redirect_hash"),
        HelperUse(113, "probe_read_kernel"),
    )
    connect = programs["connect4"]
    assert (connect.type, connect.attach_type) == ("CGROUP_SOCK_ADDR", "CGROUP_INET4_CONNECT")
    assert connect.helpers == (HelperUse(1, "map_lookup_elem"),)
    assert info.license == "GPL"
    assert info.gpl_compatible
    assert info.arch == "bpfel"
    assert info.has_btf
    assert info.has_btf_ext


def test_maps_are_what_libbpf_says(sample: Path) -> None:
    def plain(maps: Any) -> dict[str, tuple[int, int, int]]:
        return {m.name: (m.key_size, m.value_size, m.max_entries) for m in maps}

    info = inspect_object(sample)
    with BpfObject(sample) as opened:
        assert plain(info.maps) == plain(opened.maps().values())
    types = {item.name: item.type for item in info.maps}
    assert types == {"clients": "SOCKHASH", "pointers": "HASH", ".rodata": "ARRAY"}
    assert {item.name: item.flags for item in info.maps}["pointers"] == 1


def test_programs_are_what_libbpf_says(sample: Path) -> None:
    with BpfObject(sample) as opened:
        known = {p.name: (p.section, p.type, p.attach_type) for p in opened.programs().values()}
    assert set(known) == {program.name for program in inspect_object(sample).programs}
    for program in inspect_object(sample).programs:
        kind = lib().libbpf_bpf_prog_type_str(known[program.name][1]).decode()
        assert (program.section, program.type.lower()) == (known[program.name][0], kind)


def test_core_fields_without_those_it_tests_for(sample: Path) -> None:
    assert inspect_object(sample).core_fields == ("sock.sk_sndbuf", "tcp_sock.rcv_nxt")


def test_kfuncs(sample_with_kfuncs: Path) -> None:
    info = inspect_object(sample_with_kfuncs)
    assert info.kfuncs == ("bpf_task_from_pid", "bpf_task_release")
    programs = {program.name: program.kfuncs for program in info.programs}
    assert programs["connect4"] == info.kfuncs
    assert programs["route"] == ()


def test_callbacks_are_counted_in(compile_bpf: Any) -> None:
    text = LICENSED + (
        "static int each(__u32 i, void *ctx) { return bpf_get_prandom_u32() & 1; }\n"
        'SEC("sockops") int f(struct bpf_sock_ops *ctx)\n'
        "{ return bpf_loop(8, each, 0, 0) & 1; }\n"
    )
    (program,) = inspect_object(compile_bpf(text)).programs
    assert {use.name for use in program.helpers} == {"loop", "get_prandom_u32"}
    assert (program.type, program.attach_type) == ("SOCK_OPS", "CGROUP_SOCK_OPS")


def refused(path: Path) -> str:
    with pytest.raises(ObjectError) as caught:
        inspect_object(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "bad.bpf.o"
    path.write_bytes(data)
    return path


def test_empty_foreign_truncated(tmp_path: Path, sample: Path) -> None:
    data = sample.read_bytes()
    assert refused(written(tmp_path, b"")) == "the file is empty"
    assert refused(written(tmp_path, b"#!/bin/sh\n")) == "not an ELF file"
    assert refused(written(tmp_path, data[:40])) == "truncated: only 40 bytes"
    assert "truncated" in refused(written(tmp_path, data[:-1]))
    assert "truncated" in refused(written(tmp_path, data[: len(data) // 2]))
    assert "ELF machine 62" in refused(Path("/bin/true").resolve())
    assert "cannot read it" in refused(tmp_path / "none.bpf.o")
    assert "cannot read it" in refused(tmp_path)


def test_big_endian(compile_bpf: Any) -> None:
    path = compile_bpf(LICENSED + TINY, target="bpfeb")
    assert refused(path) == "big-endian, this machine is little-endian"


def test_without_licence(compile_bpf: Any) -> None:
    assert "no licence" in refused(compile_bpf(HEAD + TINY))
    assert "no licence" in refused(
        compile_bpf(HEAD + 'char LICENSE[] SEC("license") = "";\n' + TINY)
    )


def test_a_licence_that_is_not_gpl_is_told(compile_bpf: Any) -> None:
    path = compile_bpf(HEAD + 'char LICENSE[] SEC("license") = "Proprietary";\n' + TINY)
    assert not inspect_object(path).gpl_compatible


def test_without_btf_or_program(compile_bpf: Any) -> None:
    assert refused(compile_bpf(LICENSED + TINY, debug=False)) == "it carries no BTF"
    assert refused(compile_bpf(LICENSED + "int x = 1;\n")) == "it holds no program"


def test_unknown_section(compile_bpf: Any) -> None:
    path = compile_bpf(LICENSED + TINY.replace("sk_msg", "nonsense"))
    assert 'section "nonsense"' in refused(path)


def test_a_linked_file_is_refused(tmp_path: Path, sample: Path) -> None:
    data = bytearray(sample.read_bytes())
    struct.pack_into("<H", data, 16, 2)
    assert refused(written(tmp_path, bytes(data))) == "not a relocatable object (ELF type 2)"


def test_what_is_left_out_where_the_kernel_lacks_a_helper_is_known(objects: Path) -> None:
    for group, name in (
        ("telemetry", "kmesh_telemetry_netns"),
        ("accelerate", "kmesh_follow_netns"),
    ):
        info = inspect_object(objects / group / f"{group}.bpf.o")
        assert info.optional_programs == (name,)
        assert name in {program.name for program in info.programs}
