# SPDX-License-Identifier: Apache-2.0
"""A damaged object is an ObjectError or a result: never another exception, a crash or a hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.objects.inspect import ObjectError, inspect_object

FUZZ = settings(
    max_examples=600,
    deadline=5000,  # a hang is a fault
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Structure sits in headers, BTF and symbols: aligned words are worth more than single bits.
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([1, 2, 4, 8]),
        st.one_of(
            st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 2**63])
        ),
    ),
    min_size=1,
    max_size=6,
)


def survives(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        inspect_object(path)
    except ObjectError:
        return False
    return True


@FUZZ
@given(edits=EDITS)
def test_overwritten_words(
    edits: list[tuple[float, int, int]], sample: Path, tmp_path: Path
) -> None:
    data = bytearray(sample.read_bytes())
    for where, width, value in edits:
        at = int(where * len(data)) // width * width
        data[at : at + width] = (value % 256**width).to_bytes(width, "little")
    survives(tmp_path / "fuzzed.bpf.o", bytes(data))


@FUZZ
@given(bits=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_flipped_bits(bits: list[float], sample: Path, tmp_path: Path) -> None:
    data = bytearray(sample.read_bytes())
    for where in bits:
        bit = int(where * len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
    survives(tmp_path / "fuzzed.bpf.o", bytes(data))


@FUZZ
@given(data=st.binary(max_size=512))
def test_arbitrary_bytes(data: bytes, tmp_path: Path) -> None:
    assert not survives(tmp_path / "fuzzed.bpf.o", data)
    assert not survives(tmp_path / "fuzzed.bpf.o", b"\x7fELF\x02\x01" + data)


def test_every_truncation(sample: Path, tmp_path: Path) -> None:
    data = sample.read_bytes()
    for length in range(0, len(data), 37):
        assert not survives(tmp_path / "fuzzed.bpf.o", data[:length]), length


@pytest.mark.parametrize("section", [".BTF", ".BTF.ext"])
def test_each_word_of_the_types(section: str, sample: Path, tmp_path: Path) -> None:
    """BTF is read by C: every word of it, set to values that break naive readers."""
    from runtime.objects.elf import read_elf

    data = sample.read_bytes()
    body = read_elf(sample, data).section(section)
    assert body is not None
    start = data.index(body.data)
    kept = 0
    for at in range(start, start + len(body.data) - 4, 4):
        for value in (0, 0xFFFFFFFF, 0x04FFFFFF, 0x10):
            edited = data[:at] + value.to_bytes(4, "little") + data[at + 4 :]
            kept += survives(tmp_path / "fuzzed.bpf.o", edited)
    assert kept  # names and unused types do not matter: not everything is refused
