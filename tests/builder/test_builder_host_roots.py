# SPDX-License-Identifier: Apache-2.0
"""Hosts of other distributions: what their header packages install is found, and read rightly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from builder.host.evidence import Target, find_evidence, this_host
from builder.host.make import make_for
from builder.kernels import DATA
from ci.hosts import rpm
from ci.kernels.debian import Wanted, wanted
from ci.kernels.headers import header_root
from runtime.compile.evidence import Kind
from runtime.compile.numbers import numbers_of_btf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def objects_for(release: str, root: Path, tmp_path: Path, checkout: Path) -> Kind:
    """Compile for a kernel of which only a root is known; what from."""
    target = Target(release=release, machine="x86_64", os="x", running=False)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made = make_for(
        target,
        sources=checkout / "bpf",
        prebuilt=None,
        out=tmp_path / "made",
        scratch=scratch,
        say=lambda _: None,
        root=root,
    )
    assert made.objects
    assert made.renumbered == {}
    return made.evidence.kind


@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs Debian's apt")
@pytest.mark.parametrize("kernel", wanted(), ids=lambda kernel: kernel.suite)
def test_debians_headers_say_what_its_kernels_btf_says(
    kernel: Wanted, tmp_path: Path, checkout: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    release = header_root(kernel, root)
    target = Target(release=release, machine="x86_64", os="debian", running=False)
    best, packaged = find_evidence(target, root=root)
    assert best.kind is Kind.HEADERS
    assert packaged.kind is Kind.PACKAGED
    assert objects_for(release, root, tmp_path, checkout) is Kind.HEADERS
    known = DATA / f"{release}.btf"
    if not known.exists():
        pytest.skip(f"the suite has moved on to {release}: run python -m ci.kernels")
    of_btf = numbers_of_btf(known)
    of_btf.pop("__BPF_FUNC_MAX_ID", None)
    assert dict(best.numbers) == {name: n for name, n in of_btf.items() if name in best.numbers}
    assert len(best.numbers) > 150


@pytest.mark.root
@pytest.mark.skipif(
    not all(map(shutil.which, (*rpm.TOOLS, "clang"))),
    reason="needs dnf, rpmbuild, createrepo_c and clang",
)
def test_a_root_installed_with_dnf_is_found_where_rpm_distributions_put_things(
    tmp_path: Path, checkout: Path
) -> None:
    root, scratch = tmp_path / "root", tmp_path / "repository"
    root.mkdir()
    rpm.install(root, scratch=scratch)
    assert objects_for(rpm.RELEASE, root, tmp_path, checkout) is Kind.HEADERS
    host = root / "host/etc"
    host.mkdir(parents=True)
    shutil.copy(root / "etc/os-release", host)
    assert this_host(root=root, release=rpm.RELEASE).os == rpm.OS
