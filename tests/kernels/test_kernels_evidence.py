# SPDX-License-Identifier: Apache-2.0
"""Reduced evidence says the same as the whole: on the running kernel's BTF, and of those kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci.kernels.__main__ import reduced_config
from ci.kernels.debian import wanted
from ci.kernels.image import btf_of
from ci.kernels.subset import needed_for_verdicts, subset
from runtime.bpf.btf import Btf, Kind
from runtime.errors import KmeshError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
KEPT = sorted((Path(__file__).parents[2] / "builder/data/kernels").glob("*.btf"))

needs_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel publishes no BTF")


@needs_btf
@pytest.mark.parametrize("name", ["bpf_func_id", "bpf_map_type", "bpf_prog_type"])
def test_enums_survive_whole(tmp_path: Path, name: str) -> None:
    small = tmp_path / "small.btf"
    small.write_bytes(subset(VMLINUX.read_bytes(), needed_for_verdicts))
    with Btf(VMLINUX) as whole, Btf(small) as reduced:
        expected = whole.enum(whole.find(name, Kind.ENUM) or 0)
        assert reduced.enum(reduced.find(name, Kind.ENUM) or 0) == expected
        assert expected


@needs_btf
@pytest.mark.parametrize("name", ["sock", "tcp_sock"])
def test_layouts_survive_with_sizes_and_offsets(tmp_path: Path, name: str) -> None:
    small = tmp_path / "small.btf"
    small.write_bytes(subset(VMLINUX.read_bytes(), needed_for_verdicts))
    with Btf(VMLINUX) as whole, Btf(small) as reduced:
        old, new = whole.find(name, Kind.STRUCT) or 0, reduced.find(name, Kind.STRUCT) or 0
        assert reduced.size(new) == whole.size(old)
        assert [(field, at) for field, _, at in reduced.members(new)] == [
            (field, at) for field, _, at in whole.members(old)
        ]


@needs_btf
def test_a_subset_of_a_subset_is_itself() -> None:
    once = subset(VMLINUX.read_bytes(), needed_for_verdicts)
    assert subset(once, needed_for_verdicts) == once
    assert len(once) < 200_000


def test_what_is_no_btf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not BTF"):
        subset(b"\0" * 64, needed_for_verdicts)
    junk = tmp_path / "vmlinuz"
    junk.write_bytes(b"\x1f\x8b\x08" + b"x" * 100)
    with pytest.raises(KmeshError, match="no kernel found"):
        btf_of(junk)


def test_configuration_keeps_what_is_off_too() -> None:
    text = "CONFIG_BPF=y\n# CONFIG_BPF_LSM is not set\nCONFIG_USB=y\n"
    assert reduced_config(text) == "CONFIG_BPF=y\n# CONFIG_BPF_LSM is not set\n"


def test_evidence_is_kept_for_every_listed_kernel() -> None:
    assert len(KEPT) == len(wanted())
    for path in KEPT:
        assert path.with_suffix(".config").is_file()
        with Btf(path) as btf:
            helpers = btf.enum(btf.find("bpf_func_id", Kind.ENUM) or 0)
        assert helpers["BPF_FUNC_msg_redirect_hash"] == 71
