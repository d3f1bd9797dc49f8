# SPDX-License-Identifier: Apache-2.0
"""Package repositories of openEuler's shape, made here with rpmbuild and createrepo_c."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from builder.rootfs.openeuler import PACKAGES

needs_rpm = pytest.mark.skipif(
    not all(map(shutil.which, ("dnf", "rpmbuild", "createrepo_c", "rpmsign", "gpg"))),
    reason="needs dnf, rpmbuild, createrepo_c and gpg (Debian: dnf, rpm, createrepo-c, gnupg)",
)
RELEASE = 'NAME="openEuler"\nID="openEuler"\nVERSION_ID="24.03"\nPRETTY_NAME="openEuler 24.03"\n'
# The files are taken as they are: not stripped, not compressed, not asked what they need.
SPEC = """
%global __os_install_post %{{nil}}
%global debug_package %{{nil}}
%global _binary_payload w0.ufdio
%global _build_id_links none
%global _binaries_in_noarch_packages_terminate_build 0
Name: {name}
Version: 1
Release: 1.oe2403
Summary: {name}
License: MulanPSL-2.0
Vendor: test
AutoReqProv: no
BuildArch: noarch
%description
{name}
%install
mkdir -p %{{buildroot}}
cp -a {tree}/. %{{buildroot}}
%files -f {tree}.files
"""


def make_repository(place: Path, trees: dict[str, Path]) -> str:
    """A repository with all that a root needs; returns its URI.

    Args:
        place: an empty directory.
        trees: for a package, its files; any other has one file.
    """
    repository = place / "repo"
    repository.mkdir(parents=True)
    for name in PACKAGES:
        tree = trees.get(name) or _tree(place / name, {f"usr/share/{name}": name})
        _build(name, tree, place)
    subprocess.run(["createrepo_c", "-q", str(repository)], check=True)
    return f"file://{repository}"


def small_trees(place: Path) -> dict[str, Path]:
    """A root that looks like openEuler with Python, and is neither."""
    return {
        "openEuler-release": _tree(place / "a", {"usr/lib/os-release": RELEASE}),
        "python3": _tree(place / "b", {"usr/bin/python3": "python"}),
    }


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _build(name: str, tree: Path, place: Path) -> None:
    found = (path for path in sorted(tree.rglob("*")) if path.is_symlink() or not path.is_dir())
    Path(f"{tree}.files").write_text("".join(f'"/{path.relative_to(tree)}"\n' for path in found))
    spec = place / f"{name}.spec"
    spec.write_text(SPEC.format(name=name, tree=tree))
    defines = [f"--define=_topdir {place}/top", f"--define=_rpmdir {place}/repo"]
    command(["rpmbuild", "-bb", "--quiet", *defines, str(spec)])


def make_key(home: Path) -> Path:
    """A signing key of its own; returns the file with its public half."""
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    gpg = ["gpg", "--batch", "--quiet"]
    generate = [
        "--passphrase",
        "",
        "--quick-generate-key",
        "kmesh test",
        "rsa2048",
        "sign",
        "never",
    ]
    command([*gpg, *generate], env=environment)
    public = home / "key.asc"
    command([*gpg, "--armor", "--output", str(public), "--export"], env=environment)
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)
    return public


def sign(repository: str, home: Path) -> None:
    """Sign all packages of a repository, and write its index again."""
    place = Path(repository.removeprefix("file://"))
    packages = [str(path) for path in sorted(place.rglob("*.rpm"))]
    defines = [f"--define=_gpg_path {home}", "--define=_gpg_name kmesh test"]
    defines.append(f"--define=__gpg {shutil.which('gpg')}")  # Debian's rpm asks for gpg2
    environment = {**os.environ, "GNUPGHOME": str(home)}
    command(["rpmsign", "--addsign", *defines, *packages], env=environment)
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)
    command(["createrepo_c", "-q", str(place)])


def command(argv: Sequence[str], *, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
