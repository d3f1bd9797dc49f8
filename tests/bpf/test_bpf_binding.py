# SPDX-License-Identifier: Apache-2.0
"""libbpf through ctypes, on the real kernel."""

from __future__ import annotations

import errno
import platform
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.bpf.attach import AttachType
from runtime.bpf.btf import Btf, Kind
from runtime.bpf.lib import BpfError, lib
from runtime.bpf.maps import NOEXIST, BpfMap
from runtime.bpf.objects import BpfObject, LoadError

HASH = 1

SOURCE = r"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 7);
         __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
const volatile __u32 answer = 1;
SEC("cgroup/connect4") int good(struct bpf_sock_addr *ctx)
{ __u32 key = answer; __u64 one = 1; bpf_map_update_elem(&seen, &key, &one, 0); return 1; }
#ifdef BAD
SEC("cgroup/connect4") int bad(struct bpf_sock_addr *ctx)
{ return *(volatile int *)(long)ctx->user_port; }
#endif
"""


def compiled(directory: Path, *flags: str) -> Path:
    source, target = directory / "sample.bpf.c", directory / "sample.bpf.o"
    source.write_text(SOURCE)
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", *flags, f"-I/usr/include/{platform.machine()}-linux-gnu",
         "-c", str(source), "-o", str(target)],
        check=True,
    )  # fmt: skip
    return target


@pytest.fixture
def numbers() -> Iterator[BpfMap]:
    fd = lib().bpf_map_create(HASH, b"numbers", 4, 8, 1000, None)
    assert fd >= 0
    found = BpfMap.from_fd(fd)
    yield found
    found.close()


def pack(values: range, fmt: str) -> bytes:
    return b"".join(struct.pack(fmt, value) for value in values)


@pytest.mark.root
def test_a_map_describes_itself(numbers: BpfMap) -> None:
    assert (numbers.key_size, numbers.value_size, numbers.max_entries) == (4, 8, 1000)
    assert numbers.name == "numbers"


@pytest.mark.root
def test_single_elements(numbers: BpfMap) -> None:
    key = struct.pack("<I", 5)
    assert numbers.lookup(key) is None
    numbers.update(key, struct.pack("<Q", 9))
    assert numbers.lookup(key) == struct.pack("<Q", 9)
    with pytest.raises(BpfError) as refused:
        numbers.update(key, struct.pack("<Q", 9), flags=NOEXIST)
    assert refused.value.errno == errno.EEXIST
    assert list(numbers.keys()) == [key]
    assert numbers.delete(key)
    assert not numbers.delete(key)


@pytest.mark.root
@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_batches_hold_every_element_once(numbers: BpfMap, chunk: int) -> None:
    wanted = range(900)
    numbers.update_batch(pack(wanted, "<I"), pack(wanted, "<Q"))
    found = sorted(
        (struct.unpack("<I", key)[0], struct.unpack("<Q", value)[0])
        for key, value in numbers.items(chunk=chunk)
    )
    assert found == [(value, value) for value in wanted]


@pytest.mark.root
def test_a_batch_of_deletes_passes_over_what_is_not_there(numbers: BpfMap) -> None:
    numbers.update_batch(pack(range(0, 100, 2), "<I"), pack(range(0, 100, 2), "<Q"))
    numbers.delete_batch(pack(range(60), "<I"))
    left = sorted(struct.unpack("<I", key)[0] for key in list(numbers.keys()))
    assert left == list(range(60, 100, 2))


@pytest.mark.root
def test_a_full_map_says_so(numbers: BpfMap) -> None:
    with pytest.raises(BpfError) as full:
        numbers.update_batch(pack(range(1500), "<I"), pack(range(1500), "<Q"))
    assert full.value.errno == errno.E2BIG
    assert "numbers" in str(full.value)


@pytest.mark.root
def test_an_object_loads_with_its_data_and_sizes_changed(tmp_path: Path) -> None:
    with BpfObject(compiled(tmp_path)) as opened:
        opened.set_max_entries("seen", 9)
        opened.set_initial_value(".rodata", struct.pack("<I", 3))
        assert opened.programs()["good"].fd == -1
        opened.load()
        program = opened.programs()["good"]
        assert program.fd >= 0
        assert program.attach_type == AttachType.CGROUP_INET4_CONNECT
        assert opened.maps()["seen"].max_entries == 9
        assert opened.maps()[".rodata"].lookup(struct.pack("<I", 0)) == struct.pack("<I", 3)


@pytest.mark.root
def test_a_refused_object_brings_the_verifiers_words(tmp_path: Path) -> None:
    with BpfObject(compiled(tmp_path, "-DBAD")) as opened:
        with pytest.raises(LoadError) as refused:
            opened.load()
        assert refused.value.errno == errno.EACCES
        assert "invalid mem access" in refused.value.log


@pytest.mark.root
def test_one_bad_program_can_be_left_out(tmp_path: Path) -> None:
    with BpfObject(compiled(tmp_path, "-DBAD")) as opened:
        opened.set_autoload("bad", load=False)
        opened.load()
        assert opened.programs()["good"].fd >= 0


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk.o"
    junk.write_bytes(b"not an ELF file" * 100)
    with pytest.raises(BpfError, match=r"junk\.o"):
        BpfObject(junk)


def test_btf_of_a_compiled_object(tmp_path: Path) -> None:
    with Btf(compiled(tmp_path)) as btf:
        section = btf.find(".rodata", Kind.DATASEC)
        assert section is not None
        assert btf.find("no_such_type", Kind.STRUCT) is None
        with pytest.raises(IndexError):
            btf.name(len(btf) + 10)


@pytest.mark.skipif(
    not Path("/sys/kernel/btf/vmlinux").exists(), reason="this kernel publishes no BTF"
)
def test_btf_of_the_kernel_names_helpers_and_fields() -> None:
    with Btf() as btf:
        helpers = btf.enum(btf.find("bpf_func_id", Kind.ENUM) or 0)
        assert helpers["BPF_FUNC_map_lookup_elem"] == 1
        tcp_sock = btf.find("tcp_sock", Kind.STRUCT)
        assert tcp_sock is not None
        offsets = {name: bits for name, _kind, bits in btf.members(tcp_sock)}
        assert offsets["snd_una"] % 8 == 0
        assert 0 < offsets["snd_una"] // 8 < btf.size(tcp_sock)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = {link.name for link in Path("/proc/self/fd").iterdir()}
    with BpfObject(compiled(tmp_path)):
        pass
    assert {link.name for link in Path("/proc/self/fd").iterdir()} == before


def test_errors_of_libbpf_itself_are_told_in_words() -> None:
    assert "Unknown" not in str(BpfError("cannot read it", 4001))
    assert "format" in str(BpfError("cannot read it", 4001))
    assert str(BpfError("cannot read it", errno.EPERM)) == "cannot read it: Operation not permitted"
