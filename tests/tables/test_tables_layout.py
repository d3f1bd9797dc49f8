# SPDX-License-Identifier: Apache-2.0
"""The generated layout: regenerated and compared; and what may not be laid out."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.layout import PATHS, TARGET, render
from runtime.compile import compile_object
from runtime.tables import enhanced_layout, layout
from runtime.tables.describe import LayoutError, describe
from runtime.tables.paths import files_of


def test_the_committed_module_is_what_the_objects_say(objects: Path) -> None:
    found = describe((objects / "compat").glob("*.bpf.o"))
    assert render(found) == TARGET.read_text(), "run `make generate`"
    assert found.digest == layout.DIGEST


def test_the_enhanced_paths_module_is_what_its_objects_say(all_objects: Path) -> None:
    found = describe(files_of(all_objects, "enhanced"))
    assert render(found) == PATHS["enhanced"].read_text(), "run `make generate`"
    assert found.digest == enhanced_layout.DIGEST


def test_values_come_back_as_they_went() -> None:
    cluster = layout.Cluster(7, 0, tuple(range(16)), tuple(range(16, 32)))
    assert layout.Cluster.unpack(cluster.pack()) == cluster
    key = layout.FrontendKey(bytes(range(16)), b"\x00\x50", 6)
    assert layout.FrontendKey.unpack(key.pack()) == key
    assert key.pack() == bytes(range(16)) + b"\x00\x50\x06\x00"


def compiled(directory: Path, name: str, members: str) -> Path:
    source = directory / f"{name}.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        f"struct kmesh_sample {{ {members} }};\n"
        "struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 5);"
        ' __type(key, __u32); __type(value, struct kmesh_sample); } samples SEC(".maps");\n'
    )
    target = directory / f"{name}.bpf.o"
    compile_object(source, target, include=[])
    return target


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ("__u8 a; __u32 b;", "hole before b"),
        ("__u32 a; __u8 b;", "hole at its end"),
        ("void *a;", "no integer"),
    ],
)
def test_a_struct_with_holes_or_pointers_is_refused(
    tmp_path: Path, members: str, complaint: str
) -> None:
    with pytest.raises(LayoutError, match=complaint):
        describe([compiled(tmp_path, "sample", members)])


def test_objects_must_agree_on_a_map(tmp_path: Path) -> None:
    one = compiled(tmp_path, "one", "__u32 a;")
    other_dir = tmp_path / "other"
    other_dir.mkdir()
    source = (tmp_path / "one.bpf.c").read_text().replace("max_entries, 5", "max_entries, 6")
    (other_dir / "two.bpf.c").write_text(source)
    compile_object(other_dir / "two.bpf.c", other_dir / "two.bpf.o", include=[])
    with pytest.raises(LayoutError, match=r"two\.bpf\.o: map samples differs"):
        describe([one, other_dir / "two.bpf.o"])


def test_another_layout_has_another_digest(tmp_path: Path) -> None:
    one = describe([compiled(tmp_path, "one", "__u32 a;")])
    two = describe([compiled(tmp_path, "two", "__u32 b;")])
    assert one.digest != two.digest
