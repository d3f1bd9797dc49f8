# SPDX-License-Identifier: Apache-2.0
"""An openEuler root installed with dnf from a repository that is made here, of packages that hold one file each."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from builder.rootfs import openeuler
from builder.rootfs.openeuler import PACKAGES
from runtime.errors import KmeshError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("dnf", "rpmbuild", "createrepo_c"))),
        reason="needs dnf, rpmbuild and createrepo_c (Debian: dnf, rpm, createrepo-c)",
    ),
]
FILES = {
    "openEuler-release": (
        "/usr/lib/os-release",
        'NAME="openEuler"\nID="openEuler"\nVERSION_ID="24.03"',
    ),
    "python3": ("/usr/bin/python3", "python"),
}
SPEC = """
Name: {name}
Version: 1
Release: 1.oe2403
Summary: {name}
License: MulanPSL-2.0
BuildArch: noarch
%description
{name}
%install
mkdir -p %{{buildroot}}$(dirname {path})
printf '%s\\n' '{text}' > %{{buildroot}}{path}
%files
{path}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("repo")
    (place / "repo").mkdir()
    for name in PACKAGES:
        path, text = FILES.get(name, (f"/usr/share/{name}", name))
        spec = place / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, path=path, text=text))
        build(spec, place)
    subprocess.run(["createrepo_c", "-q", str(place / "repo")], check=True)
    return f"file://{place}/repo"


def build(spec: Path, place: Path) -> None:
    defines = [f"--define=_topdir {place}/top", f"--define=_rpmdir {place}/repo"]
    done = subprocess.run(
        ["rpmbuild", "-bb", "--quiet", *defines, str(spec)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_root_is_installed_from_a_repository(repository: str, tmp_path: Path) -> None:
    said: list[str] = []
    root = openeuler.from_repository(tmp_path, repository, say=said.append)
    assert root.release.version == "24.03"
    assert root.inputs[0].startswith("repomd.xml sha256:")
    again = openeuler.from_repository(tmp_path, repository, say=said.append)
    assert again == root
    assert len(said) == 1, "the second time it comes from the cache"


def test_a_repository_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match="no package repository at file:///nowhere") as error:
        openeuler.from_repository(tmp_path, "file:///nowhere", say=print)
    assert "--base-archive" in str(error.value.hint)
