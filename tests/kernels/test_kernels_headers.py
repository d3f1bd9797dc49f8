# SPDX-License-Identifier: Apache-2.0
"""What bcc tells from Debian's header packages is what the BTF of the very kernel says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ci.kernels.debian import Wanted, fetch, wanted
from ci.kernels.headers import header_root
from ci.kernels.image import btf_of
from runtime.bpf.btf import Btf
from runtime.bpf.btf_encode import encode
from runtime.objects.inspect import inspect_object
from runtime.probe import bcc_adapter
from runtime.probe.standin import layout, questions
from tests.probe.layouts import answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.skipif(bcc_adapter._interpreter() is None, reason="needs bcc (python3-bpfcc)")
@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs Debian's apt")
@pytest.mark.parametrize("kernel", wanted(), ids=lambda kernel: kernel.suite)
def test_headers_and_btf_agree(kernel: Wanted, tmp_path: Path, objects: Path) -> None:
    [image] = fetch([kernel])
    release = header_root(kernel, tmp_path)
    assert release == image.release
    found = bcc_adapter.headers(release, root=tmp_path)
    assert found is not None
    fields = {
        name for path in objects.rglob("*.bpf.o") for name in inspect_object(path).core_fields
    }
    asked = questions({*fields, "sock.none", "none.x"})
    values, unknown = bcc_adapter.constants(asked, found=found)
    assert set(unknown) == {"sock.none", "none", "none.x"}
    known = questions(fields)
    with Btf.from_bytes(btf_of(image.image)) as genuine:
        expected = answers(genuine, known)
    # Whether an integer has a sign does not matter to a relocation of where it is.
    assert {path: list(value[:3]) for path, value in values.items()} == expected
    made, odd = layout(values)
    assert odd == []
    with Btf.from_bytes(encode(made)) as ours:
        assert answers(ours, known) == expected
