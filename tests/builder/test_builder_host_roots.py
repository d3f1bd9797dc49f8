# SPDX-License-Identifier: Apache-2.0
"""Hosts of other distributions: what their header packages install is found, and read rightly."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from builder.host.evidence import Target, find_evidence, this_host
from builder.host.make import make_for
from builder.kernels import DATA
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


SPEC = """
Name: kernel-devel
Version: 5.14.0
Release: 1.el9
Summary: Headers
License: GPL-2.0-only
BuildArch: x86_64
%description
Headers.
%install
mkdir -p %{buildroot}/usr/src/kernels/5.14.0-1.el9.x86_64/include/uapi/linux %{buildroot}/lib/modules/5.14.0-1.el9.x86_64
cp %{_sourcedir}/bpf.h %{buildroot}/usr/src/kernels/5.14.0-1.el9.x86_64/include/uapi/linux/
ln -s /usr/src/kernels/5.14.0-1.el9.x86_64 %{buildroot}/lib/modules/5.14.0-1.el9.x86_64/build
mkdir -p %{buildroot}/etc
printf 'ID=almalinux\\nVERSION_ID=9.4\\n' > %{buildroot}/etc/os-release
%files
/usr/src/kernels
/lib/modules
/etc/os-release
"""


@pytest.mark.root
@pytest.mark.skipif(
    not all(map(shutil.which, ("dnf", "rpmbuild", "createrepo_c", "clang"))),
    reason="needs dnf, rpmbuild, createrepo_c and clang",
)
def test_a_root_installed_with_dnf_is_found_where_rpm_distributions_put_things(
    tmp_path: Path, checkout: Path
) -> None:
    repository, root = tmp_path / "repository", tmp_path / "root"
    for place in (repository, root, tmp_path / "top/SOURCES"):
        place.mkdir(parents=True)
    shutil.copy("/usr/include/linux/bpf.h", tmp_path / "top/SOURCES/bpf.h")
    spec = tmp_path / "kernel-devel.spec"
    spec.write_text(SPEC)
    subprocess.run(
        [
            *("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {tmp_path}/top"),
            *("--define", f"_rpmdir {repository}", "--nodeps", str(spec)),
        ],
        check=True,
        capture_output=True,
    )
    subprocess.run(["createrepo_c", "-q", str(repository)], check=True, capture_output=True)
    subprocess.run(
        [
            *("dnf", "-y", "-q", f"--installroot={root}", "--releasever=9", "--disablerepo=*"),
            *("--setopt=reposdir=/nowhere", f"--repofrompath=local,file://{repository}"),
            *("--enablerepo=local", "--nogpgcheck", "install", "kernel-devel"),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    release = "5.14.0-1.el9.x86_64"
    assert objects_for(release, root, tmp_path, checkout) is Kind.HEADERS
    host = root / "host/etc"
    host.mkdir(parents=True)
    shutil.copy(root / "etc/os-release", host)
    assert this_host(root=root, release=release).os == "almalinux9.4"
