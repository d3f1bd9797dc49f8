# SPDX-License-Identifier: Apache-2.0
"""Objects that may not go into an image: empty, foreign, refused by the kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builder.objects import check_object, make_objects, try_load
from runtime.errors import KmeshError

GOOD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("cgroup/connect4") int first(struct bpf_sock_addr *ctx) { return 1; }
char _license[] SEC("license") = "GPL";
"""
# Reads through a pointer that may be null: well-formed, and nothing a verifier lets through.
REFUSED = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1);
         __type(key, __u32); __type(value, __u32); } table SEC(".maps");
SEC("cgroup/connect4") int first(struct bpf_sock_addr *ctx)
{
	__u32 key = 0, *value = bpf_map_lookup_elem(&table, &key);
	return *value;
}
char _license[] SEC("license") = "GPL";
"""


def sources(root: Path, text: str) -> Path:
    (root / "bpf" / "compat").mkdir(parents=True)
    (root / "bpf" / "include").mkdir()
    (root / "bpf" / "compat" / "first.bpf.c").write_text(text)
    return root / "bpf"


def test_objects_are_compiled_and_inspected(tmp_path: Path) -> None:
    said: list[str] = []
    made = make_objects(sources(tmp_path, GOOD), tmp_path / "out", load=False, say=said.append)
    (item,) = made.objects
    assert item.name == "compat/first.bpf.o"
    assert item.info.programs[0].type == "CGROUP_SOCK_ADDR"
    assert item.loaded is None
    assert said[-1] == "1 objects inspected, not tried on this kernel"
    assert "clang" in made.compiler


def test_a_source_that_does_not_compile_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match=r"first\.bpf\.c"):
        make_objects(sources(tmp_path, "int x = ;\n"), tmp_path / "out", load=False, say=print)


@pytest.mark.root
def test_an_object_that_this_kernel_accepts_is_told(tmp_path: Path) -> None:
    made = make_objects(sources(tmp_path, GOOD), tmp_path / "out", load=True, say=print)
    assert made.objects[0].loaded is True


@pytest.mark.root
def test_an_object_that_this_kernel_refuses_stops_the_build_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        KmeshError, match=r"compat/first\.bpf\.o does not load on this kernel"
    ) as error:
        make_objects(sources(tmp_path, REFUSED), tmp_path / "out", load=True, say=print)
    assert error.value.hint
    made = make_objects(tmp_path / "bpf", tmp_path / "out", load=False, say=print)
    assert made.objects[0].loaded is None


@pytest.mark.root
def test_without_the_right_to_try_an_object_is_not_judged(tmp_path: Path) -> None:
    make_objects(sources(tmp_path, GOOD), tmp_path / "out", load=False, say=print)
    path = tmp_path / "out" / "compat" / "first.bpf.o"
    code = (
        "import sys; from pathlib import Path; from builder.objects import try_load;"
        "print(try_load(Path(sys.argv[1]), 'x'))"
    )
    import sys

    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            sys.executable,
            "-c",
            code,
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "None", done.stderr


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"hello, world", "ELF")], ids=["empty", "foreign"]
)
def test_what_is_no_object_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.bpf.o"
    path.write_bytes(content)
    with pytest.raises(KmeshError, match=rf"bad\.bpf\.o: .*{reason}"):
        check_object(path, "compat/bad.bpf.o", load=False)


def test_a_program_of_this_host_is_no_bpf_object(tmp_path: Path) -> None:
    with pytest.raises(KmeshError):
        check_object(Path("/bin/true").resolve(), "compat/true", load=False)


@pytest.mark.root
def test_what_libbpf_cannot_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bpf.o").write_bytes(b"\x7fELF")
    with pytest.raises(KmeshError, match=r"x\.bpf\.o does not load"):
        try_load(tmp_path / "x.bpf.o", "x.bpf.o")
