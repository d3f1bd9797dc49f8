# SPDX-License-Identifier: Apache-2.0
"""Roots: dpkg's database read, a root cut into layers, archives of users taken or refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from builder.cache import file_sha256
from builder.rootfs import openeuler
from builder.rootfs.dpkg import closure, owner_lists, parse_status
from builder.rootfs.split import STATUS, Layer, split
from runtime.errors import KmeshError

STATUS_TEXT = """\
Package: python3
Status: install ok installed
Architecture: amd64
Version: 3.11.2-1
Depends: python3-minimal (= 3.11.2-1), libc6 (>= 2.36), media-types | mime-support

Package: python3-minimal
Status: install ok installed
Architecture: amd64
Version: 3.11.2-1
Pre-Depends: libc6
Depends: dpkg:any (>= 1.13)

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21
Depends: tar

Package: tar
Status: install ok installed
Architecture: amd64
Version: 1.34

Package: mailcap
Status: install ok installed
Architecture: all
Version: 3.70
Provides: mime-support (= 3), something

Package: clang
Status: install ok installed
Architecture: amd64
Version: 14
Depends: libc6, libllvm

Package: libllvm
Status: install ok installed
Architecture: amd64
Version: 14

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
LISTS = {
    "python3": "/.\n/usr\n/usr/bin\n/usr/bin/python3\n/usr/lib\n/usr/lib/os.py\n",
    "libc6:amd64": "/.\n/lib\n/lib/libc.so\n",
    "dpkg": "/.\n/usr/bin/dpkg\n",
    "clang": "/.\n/usr/bin/clang\n/usr/share/doc/clang/copyright\n",
    "libllvm:amd64": "/.\n/usr/lib/libllvm.so\n",
}


def write_root(path: Path, *, mtime: int = 2_000_000_000) -> Path:
    files = {
        "usr/bin/python3": b"python",
        "usr/lib/os.py": b"os",
        "usr/lib/__pycache__/os.cpython-311.pyc": b"code",
        "usr/lib/libc.so": b"libc",
        "usr/lib/libllvm.so": b"llvm",
        "usr/bin/dpkg": b"dpkg",
        "usr/bin/clang": b"clang",
        "usr/share/doc/clang/copyright": b"free",
        "usr/local/bin/ls": b"busybox",
        "var/log/bootstrap.log": b"noise",
        STATUS: STATUS_TEXT.encode(),
        **{f"var/lib/dpkg/info/{name}.list": text.encode() for name, text in LISTS.items()},
    }
    directories = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    with tarfile.open(path, "w") as tar:
        for name in sorted(directories):
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        link = tarfile.TarInfo("./lib")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/lib"
        tar.addfile(link)
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mtime = len(data), mtime
            tar.addfile(member, io.BytesIO(data))
    return path


def names(path: Path) -> set[str]:
    with tarfile.open(path) as tar:
        return {member.name for member in tar if not member.isdir()}


LAYERS = (
    Layer("base", ("python3",), frozenset({"dpkg"})),
    Layer("toolchain", ("clang",), frozenset({"dpkg"})),
)


def test_what_is_not_installed_is_no_package() -> None:
    assert "removed" not in parse_status(STATUS_TEXT)


def test_a_closure_follows_dependencies_alternatives_and_virtual_packages() -> None:
    found = closure(parse_status(STATUS_TEXT), ["python3"], [])
    assert found == {"python3", "python3-minimal", "libc6", "dpkg", "tar", "mailcap"}


def test_what_is_cut_takes_along_what_only_it_needs() -> None:
    found = closure(parse_status(STATUS_TEXT), ["python3"], ["dpkg"])
    assert found == {"python3", "python3-minimal", "libc6", "mailcap"}


def test_a_package_that_is_wanted_must_be_there() -> None:
    with pytest.raises(KeyError, match="gone"):
        closure(parse_status(STATUS_TEXT), ["gone"], [])


def test_owners_are_known_by_list_files() -> None:
    owners = owner_lists({"libc6:amd64.list": "/.\n/lib/libc.so\n", "libc6:amd64.md5sums": "x"})
    assert owners["lib/libc.so"] == {"libc6"}


def test_a_root_is_cut_into_layers(tmp_path: Path) -> None:
    targets = [tmp_path / "base.tar", tmp_path / "toolchain.tar"]
    packages = split(
        write_root(tmp_path / "root.tar"), LAYERS, targets, dropped=["var/log/*"], epoch=1000
    )
    assert names(targets[0]) == {
        "lib",
        "usr/bin/python3",
        "usr/lib/os.py",
        "usr/lib/__pycache__/os.cpython-311.pyc",
        "usr/lib/libc.so",
        "usr/local/bin/ls",
        "var/lib/dpkg/info/python3.list",
        "var/lib/dpkg/info/libc6:amd64.list",
        STATUS,
    }
    assert names(targets[1]) == {
        "usr/bin/clang",
        "usr/lib/libllvm.so",
        "usr/share/doc/clang/copyright",
        "var/lib/dpkg/info/clang.list",
        "var/lib/dpkg/info/libllvm:amd64.list",
        STATUS,
    }
    assert [package.name for package in packages[0]] == [
        "libc6",
        "mailcap",
        "python3",
        "python3-minimal",
    ]
    assert {package.name for package in packages[1]} - {p.name for p in packages[0]} == {
        "clang",
        "libllvm",
    }


def test_the_database_of_each_layer_tells_what_is_there_with_it(tmp_path: Path) -> None:
    targets = [tmp_path / "base.tar", tmp_path / "toolchain.tar"]
    split(write_root(tmp_path / "root.tar"), LAYERS, targets, dropped=[], epoch=1000)
    for target, has_clang in zip(targets, (False, True), strict=True):
        with tarfile.open(target) as tar:
            stream = tar.extractfile(STATUS)
            assert stream
            packages = parse_status(stream.read().decode())
        assert ("clang" in packages) is has_clang
        assert "dpkg" not in packages


def test_layers_do_not_depend_on_when_the_root_was_made(tmp_path: Path) -> None:
    digests = []
    for mtime in (2_000_000_000, 2_100_000_000):
        targets = [tmp_path / f"{mtime}-base.tar", tmp_path / f"{mtime}-toolchain.tar"]
        root = write_root(tmp_path / f"{mtime}.tar", mtime=mtime)
        split(root, LAYERS, targets, dropped=[], epoch=1000)
        digests.append([file_sha256(target) for target in targets])
    assert digests[0] == digests[1]


def root_archive(path: Path, release: str, *, python: bool = True, rpm: bool = True) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        files = {"usr/lib/os-release": release.encode(), "var/log/dnf.log": b"noise"}
        files |= {"usr/bin/rpm": b"rpm"} if rpm else {}
        files |= {"usr/bin/python3.11": b"python"} if python else {}
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (
            ("etc/os-release", "../usr/lib/os-release"),
            ("usr/bin/python3", "python3.11"),
        ):
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def test_a_root_archive_of_openeuler_is_taken(tmp_path: Path) -> None:
    archive = root_archive(tmp_path / "root.tar.gz", 'ID="openEuler"\nVERSION_ID="24.03"\n')
    root = openeuler.from_archive(tmp_path / "cache", archive)
    assert root.release.version == "24.03"
    assert "var/log/dnf.log" not in names(root.layer)
    assert root.digest == file_sha256(root.layer)


def test_a_root_archive_of_another_distribution_is_refused(tmp_path: Path) -> None:
    archive = root_archive(tmp_path / "root.tar.gz", "ID=fedora\nPRETTY_NAME=Fedora\n")
    with pytest.raises(KmeshError, match="openEuler was wanted, it is Fedora"):
        openeuler.from_archive(tmp_path / "cache", archive)


def test_a_root_archive_without_python_is_refused(tmp_path: Path) -> None:
    archive = root_archive(tmp_path / "root.tar.gz", "ID=openEuler\n", python=False)
    with pytest.raises(KmeshError, match="has no usr/bin/python3"):
        openeuler.from_archive(tmp_path / "cache", archive)


def test_a_root_archive_that_does_not_tell_its_packages_is_refused(tmp_path: Path) -> None:
    archive = root_archive(tmp_path / "root.tar.gz", "ID=openEuler\n", rpm=False)
    with pytest.raises(KmeshError, match="does not tell its packages") as error:
        openeuler.from_archive(tmp_path / "cache", archive)
    assert "bill of materials" in str(error.value.hint)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_text("hello")
    with pytest.raises(KmeshError, match="is no tar archive"):
        openeuler.from_archive(tmp_path / "cache", tmp_path / "root.tar")
    assert not list((tmp_path / "cache" / "roots").iterdir())
