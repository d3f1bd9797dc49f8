# SPDX-License-Identifier: Apache-2.0
"""bcc, for what it is good at: kernel structures and functions of a kernel that has no BTF.

bcc compiles against the kernel's headers, so it knows a structure's layout where BTF does not. It
is optional (the distribution's package, never PyPI's project of that name), slow to import, and its
library tries `modprobe kheaders` when it finds no headers: so headers are looked for here first.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.errors import KmeshError

_INCLUDES = ("net/sock.h", "linux/tcp.h", "linux/skbuff.h", "linux/skmsg.h", "linux/net.h")


def headers(release: str, *, root: Path = Path("/")) -> Path | None:
    """Where bcc will find this kernel's headers, None when nowhere.

    Args:
        release: `uname -r`.
        root: the directory to look under.
    """
    said = os.environ.get("BCC_KERNEL_SOURCE")
    if said:
        return Path(said) if Path(said).is_dir() else None
    places = (
        root / f"lib/modules/{release}/build",
        root / f"lib/modules/{release}/source",
        root / "sys/kernel/kheaders.tar.xz",
    )
    return next((place for place in places if place.exists()), None)


def unavailable(release: str, *, root: Path = Path("/")) -> str | None:
    """Why bcc cannot be used for this kernel, None when it can be tried. Imports nothing."""
    if importlib.util.find_spec("bcc") is None:
        return "bcc for Python is not installed"
    if headers(release, root=root) is None:
        return f"bcc is here, the headers of kernel {release} are not"
    return None


def missing_fields(release: str, paths: Iterable[str]) -> list[str]:
    """Which of "struct.field" the kernel's headers do not have.

    Args:
        release: `uname -r`.
        paths: fields, as CO-RE relocations name them.

    Raises:
        KmeshError: bcc or the headers are not there, or bcc cannot compile anything here.
    """
    wanted = list(paths)
    why_not = unavailable(release)
    if why_not is not None:
        raise KmeshError(f"cannot look into kernel headers: {why_not}")
    if not _compiles([]):
        raise KmeshError(f"bcc cannot compile with the headers in {headers(release)}")
    if _compiles(wanted):
        return []
    return [path for path in wanted if not _compiles([path])]


def missing_functions(names: Iterable[str]) -> list[str]:
    """Which kernel functions /proc/kallsyms does not have.

    Raises:
        KmeshError: bcc is not there.
    """
    bpf = _bpf()
    return [name for name in names if bpf.ksymname(name.encode()) == -1]


def _compiles(paths: list[str]) -> bool:
    includes = "".join(f"#include <{name}>\n" for name in _INCLUDES)
    lines = "".join(f"    sum += {_offset(path)};\n" for path in paths)
    text = f"{includes}int probe(void *ctx)\n{{\n    u64 sum = 0;\n{lines}    return sum;\n}}\n"
    try:
        # Compiles and loads nothing: programs are loaded one by one on demand.
        _bpf()(text=text.encode())
    except Exception:  # noqa: BLE001 - bcc raises Exception itself
        return False
    return True


def _offset(path: str) -> str:
    root, _, field = path.partition(".")
    return f"__builtin_offsetof(struct {root}, {field})"


def _bpf() -> Any:
    try:
        from bcc import BPF
    except (ImportError, OSError, AttributeError) as error:
        raise KmeshError(
            f"bcc cannot be used: {error}", hint="Debian: apt-get install python3-bpfcc"
        ) from error
    return BPF
