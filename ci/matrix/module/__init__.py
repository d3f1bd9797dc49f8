# SPDX-License-Identifier: Apache-2.0
"""Our own kernel module with functions of the names that Kmesh's module has, compiled for a listed kernel.

The distribution's own compiler and headers do it, in a root of the kernel's suite that is gone
afterwards: minutes, so the module is cached by all that it is made of.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from builder.cache import cache_dir
from ci.kernels.debian import Kernel, Wanted
from runtime.errors import KmeshError
from runtime.process import run

NAME = "kmesh_kfuncs"
_SOURCES = Path(__file__).parent
_COMPILER = "gcc-14"  # that of the suite, which compiled the kernel
_IN_ROOT = "/module"
_SECONDS = 1200.0


def sources() -> list[Path]:
    """What it is made of."""
    return sorted([*_SOURCES.glob("*.[ch]"), _SOURCES / "Kbuild"])


def module(kernel: Kernel, listed: Wanted) -> Path:
    """The module for a kernel, compiled unless it is in the cache.

    Args:
        kernel: which; its headers' package has its release in its name.
        listed: its line of kernels.list.

    Raises:
        CommandError: a package mirror cannot be reached, or it does not compile.
        KmeshError: there is no module at the end.
    """
    state = hashlib.sha256(f"{kernel.release} {listed.suite} {_COMPILER}".encode())
    for source in sources():
        state.update(source.name.encode() + b"\0" + source.read_bytes())
    kept = cache_dir() / "matrix" / f"{NAME}-{state.hexdigest()[:16]}.ko"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="kmesh-module-", dir=kept.parent) as scratch:
            built = _compile(kernel, listed, Path(scratch))
            built.rename(kept)
    return kept


def _compile(kernel: Kernel, listed: Wanted, scratch: Path) -> Path:
    headers = f"linux-headers-{kernel.release}"
    made = f"{_IN_ROOT}/{NAME}.ko"
    run(
        [
            *("mmdebstrap", "--variant=minbase", "--format=null", "--dpkgopt=path-exclude=/usr/share/doc/*"),
            f"--include={_COMPILER},make,{headers}",
            f'--customize-hook=mkdir "$1{_IN_ROOT}"',
            f"--customize-hook=copy-in {' '.join(map(str, sources()))} {_IN_ROOT}",
            f'--customize-hook=chroot "$1" make -C /usr/src/{headers} M={_IN_ROOT} modules',
            f"--customize-hook=copy-out {made} {scratch}",
            listed.suite,
            "/dev/null",
        ],
        timeout=_SECONDS,
    )  # fmt: skip
    built = scratch / Path(made).name
    if not built.exists():
        raise KmeshError(f"no {built.name} was made for {kernel.release}")
    return built
