# SPDX-License-Identifier: Apache-2.0
"""An openEuler root installed with dnf from a repository that is made here, of packages that hold one file each."""

from __future__ import annotations

import re
import tarfile
import time
from pathlib import Path

import pytest

from builder.rootfs import openeuler
from builder.rootfs.dnf import Repository
from builder.rootfs.openeuler import PACKAGES
from builder.rootfs.rpm import MANIFEST, parse_manifest
from builder.tarball import read_member
from runtime.errors import KmeshError
from tests.builder.rpms import make_key, make_repository, needs_rpm, sign, small_trees

pytestmark = [pytest.mark.root, needs_rpm]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("packages")
    return make_repository(place / "r", small_trees(place))


def test_a_root_is_installed_from_a_repository(repository: str, tmp_path: Path) -> None:
    said: list[str] = []
    root = openeuler.from_repository(tmp_path, Repository(repository), say=said.append)
    assert root.release.version == "24.03"
    assert root.inputs[0].startswith("repomd.xml sha256:")
    named = [
        re.fullmatch(r"(\S+)-1-1\.oe2403\.noarch sha256:[0-9a-f]{64}", each) for each in root.inputs
    ]
    assert {each[1] for each in named if each} == set(PACKAGES)
    assert "were checked against no key" in root.note
    again = openeuler.from_repository(tmp_path, Repository(repository), say=said.append)
    assert again == root
    assert len(said) == 1, "the second time it comes from the cache"


def test_a_root_depends_on_its_packages_and_not_on_when_it_is_installed(
    repository: str, tmp_path: Path
) -> None:
    digests = set()
    for place in ("one", "two"):
        root = openeuler.from_repository(tmp_path / place, Repository(repository), say=print)
        digests.add(root.digest)
        time.sleep(1.1)  # rpm's database has seconds
    assert len(digests) == 1


def test_a_root_has_a_list_of_its_packages_and_no_database(repository: str, tmp_path: Path) -> None:
    root = openeuler.from_repository(tmp_path, Repository(repository), say=print)
    with tarfile.open(root.layer) as tar:
        names = tar.getnames()
    assert [name for name in names if "rpmdb" in name or name.startswith("var/lib/rpm/")] == []
    text = (read_member(root.layer, [MANIFEST]) or b"").decode()
    assert set(parse_manifest(text)) == {(name, "1-1.oe2403", "noarch") for name in PACKAGES}
    assert {line.count("\t") for line in text.splitlines()} == {9}


def test_packages_must_be_signed_with_the_key_that_is_given(tmp_path: Path) -> None:
    uri = make_repository(tmp_path / "r", small_trees(tmp_path))
    key, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    with pytest.raises(KmeshError, match=r"not signed") as error:
        openeuler.from_repository(tmp_path / "cache", Repository(uri, key), say=print)
    assert "signed with the key given" in str(error.value.hint)
    sign(uri, tmp_path / "key")
    root = openeuler.from_repository(tmp_path / "cache", Repository(uri, key), say=print)
    assert root.note == ""
    assert [each for each in root.inputs if "gpg" in each] == []
    with pytest.raises(KmeshError, match="cannot install openEuler"):
        openeuler.from_repository(tmp_path / "cache", Repository(uri, other), say=print)


def test_a_repository_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match="no package repository at file:///nowhere") as error:
        openeuler.from_repository(tmp_path, Repository("file:///nowhere"), say=print)
    assert "--base-archive" in str(error.value.hint)
