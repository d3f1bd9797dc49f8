# SPDX-License-Identifier: Apache-2.0
"""Which of QEMU's accelerators to boot a kernel with: KVM once it has proved itself here, else TCG.

Some hosts offer /dev/kvm and hang every stock kernel on it. So a kernel is booted under KVM once,
with a short time limit, and what came of it is kept until this host's next boot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from builder.cache import cache_dir
from ci.kernels.debian import Kernel
from ci.matrix.boot import boot
from runtime.control.rundir import boot_id
from runtime.errors import KmeshError

TCG, KVM = "tcg", "kvm"
_DEVICE = Path("/dev/kvm")
_PROOF_SECONDS = 30.0


def accelerator(kernel: Kernel, *, prove: Callable[[Kernel], bool] | None = None) -> str:
    """The accelerator for a kernel; KMESH_MATRIX_ACCELERATOR overrules.

    Args:
        kernel: what is to be booted.
        prove: tries KVM where that has not been tried yet; without, only an earlier proof counts.
    """
    if said := os.environ.get("KMESH_MATRIX_ACCELERATOR"):
        return said
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return TCG
    proofs = _read()
    if kernel.release not in proofs and prove is not None:
        proofs[kernel.release] = prove(kernel)
        _write(proofs)
    return KVM if proofs.get(kernel.release) else TCG


def boots_under_kvm(kernel: Kernel) -> bool:
    """Boot a kernel under KVM, to do nothing, in good time."""
    try:
        return boot(kernel, "true", timeout=_PROOF_SECONDS, accelerator=KVM).status == 0
    except KmeshError:
        return False


def _file() -> Path:
    return cache_dir() / "matrix" / f"kvm-{boot_id()}.json"


def _read() -> dict[str, bool]:
    with suppress(OSError, ValueError):
        return dict(json.loads(_file().read_text()))
    return {}


def _write(proofs: dict[str, bool]) -> None:
    _file().parent.mkdir(parents=True, exist_ok=True)
    draft = _file().with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(proofs))
    draft.replace(_file())
