# SPDX-License-Identifier: Apache-2.0
"""BTF that we write, read again by libbpf."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.bpf.btf import Btf, Kind
from runtime.bpf.btf_encode import Integer, Pointer, Structure, Type, encode

NAMES = st.text("abcdefgh_", min_size=1, max_size=8)
SCALARS = st.one_of(
    st.builds(Integer, st.sampled_from([1, 2, 4, 8]), st.booleans()), st.just(Pointer())
)
OFFSETS = st.integers(0, 4096)


def structures(
    name: st.SearchStrategy[str], inner: st.SearchStrategy[Type]
) -> st.SearchStrategy[Structure]:
    members = st.lists(st.tuples(NAMES, OFFSETS, inner), max_size=5, unique_by=lambda one: one[0])
    return st.builds(Structure, name, st.integers(1, 9000), members.map(tuple), st.booleans())


NESTED = st.recursive(SCALARS, lambda inner: structures(st.just(""), inner), max_leaves=8)


def read(btf: Btf, number: int) -> Type:
    kind = btf.kind(number)
    if kind == Kind.PTR:
        return Pointer()
    if kind == Kind.INT:
        return Integer(btf.size(number), btf.name(number).startswith("s"))
    members = tuple((name, at // 8, read(btf, inner)) for name, inner, at in btf.members(number))
    return Structure(btf.name(number), btf.size(number), members, kind == Kind.UNION)


@given(st.lists(structures(NAMES, NESTED), unique_by=lambda one: one.name, max_size=4))
def test_what_is_written_is_read_again(wanted: list[Structure]) -> None:
    with Btf.from_bytes(encode(wanted)) as btf:
        for each in wanted:
            number = btf.find(each.name, Kind.UNION if each.union else Kind.STRUCT)
            assert number is not None
            assert read(btf, number) == each


def test_scalars_are_written_once() -> None:
    members = tuple((f"m{number}", number * 4, Integer(4, signed=False)) for number in range(20))
    with Btf.from_bytes(encode([Structure("s", 80, members)])) as btf:
        assert len(btf) == 1 + 1 + 1  # void, the integer, the structure
