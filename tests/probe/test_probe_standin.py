# SPDX-License-Identifier: Apache-2.0
"""What stands in for BTF: libbpf relocates the shipped objects as against the kernel's own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.bpf import objects as bpf_objects
from runtime.bpf.btf import Btf
from runtime.bpf.btf_encode import Integer, Pointer, Structure, encode
from runtime.bpf.lib import BpfError, lib
from runtime.bpf.objects import BpfObject, relocate_against
from runtime.objects.elf import read_elf
from runtime.objects.inspect import inspect_object
from runtime.objects.types import _relocations
from runtime.probe import bcc_adapter
from runtime.probe.bcc_adapter import Headers, HeadersError
from runtime.probe.capability import Context, Shipped
from runtime.probe.checks.fields import probe as probe_fields
from runtime.probe.facts import Facts, running_facts
from runtime.probe.names import KernelTypes
from runtime.probe.standin import StandIn, layout, questions, stand_in
from runtime.probe.verdict import Verdict
from tests.probe.layouts import answers

READERS = ("accelerate/accelerate", "telemetry/telemetry", "probe/flow")
VMLINUX = Path("/sys/kernel/btf/vmlinux")
needs_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel publishes no BTF")


def reader(objects: Path, name: str) -> Path:
    return objects / f"{name}.bpf.o"


def all_fields(objects: Path) -> set[str]:
    return {name for path in objects.rglob("*.bpf.o") for name in inspect_object(path).core_fields}


def with_signs(found: dict[str, list[int]]) -> dict[str, list[int]]:
    return {path: [*values, 0] if len(values) > 1 else values for path, values in found.items()}


@pytest.fixture
def blob(objects: Path, tmp_path: Path) -> Path:
    """A stand-in made of this kernel's own BTF: as headers would tell it, and nothing else."""
    with Btf(VMLINUX) as btf:
        found, odd = layout(with_signs(answers(btf, questions(all_fields(objects)))))
    assert odd == []
    path = tmp_path / "fields.btf"
    path.write_bytes(encode(found))
    assert path.stat().st_size < 4096
    return path


def test_objects_ask_for_nothing_but_fields(objects: Path) -> None:
    """What the stand-in has not: types, enum values, signedness, bit fields, "is it there"."""
    kinds: set[int] = set()
    for path in objects.rglob("*.bpf.o"):
        elf = read_elf(path, path.read_bytes())
        section, extra = elf.section(".BTF"), elf.section(".BTF.ext")
        assert section is not None
        assert extra is not None
        with Btf.from_bytes(section.data) as btf:
            kinds |= {kind for kind, _root, _access in _relocations(btf, extra.data)}
    assert kinds == {0}  # BPF_CORE_FIELD_BYTE_OFFSET


def test_no_object_calls_what_a_kernel_built_without_btf_refuses(objects: Path) -> None:
    """Helpers that return a pointer with a type of the kernel's BTF ("invalid return type of func").

    Those of the enhanced path do: such a kernel runs the compat one.
    """
    found = [path for path in objects.rglob("*.bpf.o") if path.parent.name != "enhanced"]
    called = {use.name for path in found for use in inspect_object(path).helpers}
    assert called
    assert not [name for name in called if name.startswith("skc_to_")]


def code(opened: BpfObject) -> dict[str, bytes]:
    found = {}
    for handle in opened._each("bpf_object__next_program"):
        size = lib().bpf_program__insn_cnt(handle) * 8
        name = lib().bpf_program__name(handle).decode()
        found[name] = ctypes.string_at(lib().bpf_program__insns(handle), size)
    return found


def without_maps(text: bytes) -> bytes:
    """Code without the descriptors of maps, which differ from load to load."""
    steps = [text[at : at + 8] for at in range(0, len(text), 8)]
    return b"".join(step[:4] if step[0] == 0x18 and step[1] >> 4 else step for step in steps)


def relocated(path: Path, btf: Path | None) -> dict[str, bytes]:
    with BpfObject(path, btf=btf) as opened:
        for name, one in opened.maps().items():
            if one.max_entries > 1024 and one.key_size:
                opened.set_max_entries(name, 1024)
            opened.set_pin_path(name, None)
        before = code(opened)
        opened.load()
        after = {name: without_maps(text) for name, text in code(opened).items()}
        assert after.keys() == before.keys()
        return after


@pytest.mark.root
@needs_btf
@pytest.mark.parametrize("name", READERS)
def test_libbpf_relocates_alike(objects: Path, blob: Path, name: str) -> None:
    path = reader(objects, name)
    assert relocated(path, blob) == relocated(path, None)


@pytest.mark.root
@needs_btf
def test_another_layout_is_relocated_otherwise(objects: Path, tmp_path: Path) -> None:
    """Or the test above compared nothing."""
    path = reader(objects, "accelerate/accelerate")
    with Btf(VMLINUX) as btf:
        found = with_signs(answers(btf, questions(inspect_object(path).core_fields)))
    found["tcp_sock.write_seq"][0] += 4
    other = tmp_path / "other.btf"
    other.write_bytes(encode(layout(found)[0]))
    assert relocated(path, other) != relocated(path, None)


@pytest.mark.root
def test_a_field_that_is_not_there_is_not_relocated(objects: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.btf"
    empty.write_bytes(encode(layout({"sock": [8]})[0]))
    with pytest.raises(BpfError):
        relocated(reader(objects, "accelerate/accelerate"), empty)


@pytest.fixture
def own_stand_in(tmp_path: Path) -> Iterator[Path]:
    """A process-wide stand-in that no libbpf can read."""
    junk = tmp_path / "junk.btf"
    junk.write_bytes(b"junk")
    relocate_against(junk)
    yield junk
    relocate_against(None)


@pytest.mark.root
def test_what_stands_in_is_what_objects_are_opened_with(objects: Path, own_stand_in: Path) -> None:
    with pytest.raises(BpfError, match="cannot load"):
        relocated(reader(objects, "accelerate/accelerate"), None)
    relocate_against(None)
    assert relocated(reader(objects, "accelerate/accelerate"), None)
    assert bpf_objects._stand_in is None


# What is asked, and what is made of the answers.

FIELDS = ("sock.sk_backlog.rmem_alloc.counter", "sock.sk_socket", "tcp_sock.odd", "file.gone.x")
ANSWERS = {
    "sock": [700],
    "sock.sk_backlog": [200, 24, 12, 1],
    "sock.sk_backlog.rmem_alloc": [208, 4, 12, 1],
    "sock.sk_backlog.rmem_alloc.counter": [208, 4, 1, 1],
    "sock.sk_socket": [600, 8, 5, 1],
    "tcp_sock": [2000],
    "tcp_sock.odd": [100, 12, 5, 1],  # an array
    "file": [200],
}


def test_every_step_of_a_path_is_asked_for_once() -> None:
    assert set(questions(FIELDS)) == {*ANSWERS, "file.gone", "file.gone.x"}
    assert questions(["sock"]) == {"sock": ("sizeof(struct sock)",)}


def test_offsets_are_within_the_structure_around() -> None:
    found, odd = layout(ANSWERS)
    counter = Structure("", 4, (("counter", 0, Integer(4, signed=True)),))
    backlog = Structure("", 24, (("rmem_alloc", 8, counter),))
    assert found == [
        Structure("file", 200, ()),
        Structure("sock", 700, (("sk_backlog", 200, backlog), ("sk_socket", 600, Pointer()))),
        Structure("tcp_sock", 2000, ()),
    ]
    assert odd == ["tcp_sock.odd"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Headers that answer as above, without bcc; how often they were asked."""
    times: list[int] = []

    def constants(expressions: dict[str, tuple[str, ...]], *, found: Headers) -> object:
        times.append(len(expressions))
        return ANSWERS, ["file.gone", "file.gone.x"]

    monkeypatch.setenv("KMESH_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(bcc_adapter, "headers", lambda _release: Headers((Path("/usr/src/h"),)))
    monkeypatch.setattr(bcc_adapter, "unavailable", lambda _release: None)
    monkeypatch.setattr(bcc_adapter, "constants", constants)
    return times


def test_it_is_kept_under_its_key(asked: list[int]) -> None:
    facts = Facts(release="1.2")
    first = stand_in(facts, FIELDS)
    assert first.path is not None
    assert first.missing == ("file.gone.x", "tcp_sock.odd")
    assert first.where == "/usr/src/h"
    assert stand_in(facts, FIELDS) == first
    assert len(asked) == 1
    assert stand_in(replace(facts, build_id="other"), FIELDS).path is not None
    assert stand_in(facts, FIELDS[:1]).missing == ()
    assert len(asked) == 3
    stand_in(facts, FIELDS[:1], believe=False)
    assert len(asked) == 4


def test_what_was_changed_since_is_not_believed(asked: list[int]) -> None:
    facts = Facts(release="1.2")
    path = stand_in(facts, FIELDS).path
    assert path is not None
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert stand_in(facts, FIELDS).path == path
    assert path.read_bytes() == good
    path.chmod(0o666)
    stand_in(facts, FIELDS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(asked) == 3


def test_where_nothing_can_be_kept(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMESH_RUN_DIR", "/proc/none")
    found = stand_in(Facts(release="1.2"), FIELDS)
    assert found.path is None
    assert "cannot be kept in /proc/none" in found.why_not


def test_headers_that_cannot_be_compiled(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def constants(*_args: object, **_more: object) -> object:
        raise HeadersError("they are damaged", hint="mend them")

    monkeypatch.setattr(bcc_adapter, "constants", constants)
    found = stand_in(Facts(release="1.2"), FIELDS)
    assert (found.path, found.why_not, found.remedy) == (None, "they are damaged", "mend them")


# What is said.


def said(objects: Path, found: StandIn | None, *, live: bool = True) -> tuple[Verdict, str, str]:
    path = reader(objects, "accelerate/accelerate")
    shipped = Shipped(label="x.y", group="x", info=inspect_object(path))
    context = Context(
        facts=running_facts(),
        types=KernelTypes(None),
        inspect=inspect_object,
        live=live,
        stand_in=found,
    )
    [one] = probe_fields(context, shipped)
    return one.verdict, one.summary, one.remedy


def test_fields_that_headers_have_are_present_and_say_where_from(objects: Path) -> None:
    found = StandIn(path=Path("/run/x"), where="/usr/src/h", missing=("other.field",))
    verdict, summary, _ = said(objects, found)
    assert verdict is Verdict.PRESENT
    assert "by the kernel's headers in /usr/src/h, which bcc compiled" in summary


def test_fields_that_headers_lack_are_named(objects: Path) -> None:
    found = StandIn(path=Path("/run/x"), where="/usr/src/h", missing=("file.f_flags",))
    verdict, summary, _ = said(objects, found)
    assert verdict is Verdict.ABSENT
    assert summary == "not in the kernel's headers (/usr/src/h): file.f_flags"


def test_without_bcc_or_headers_the_remedy_is_theirs(objects: Path) -> None:
    verdict, summary, remedy = said(objects, StandIn(why_not="no bcc", remedy="install it"))
    assert verdict is Verdict.ABSENT
    assert summary.endswith("nor can its headers be asked: no bcc")
    assert remedy == "install it"


def test_a_kernel_that_is_not_running_is_not_asked(objects: Path) -> None:
    verdict, summary, _ = said(objects, None, live=False)
    assert verdict is Verdict.ABSENT
    assert summary == "reading them takes the kernel's BTF, which is not there"
