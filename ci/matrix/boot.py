# SPDX-License-Identifier: Apache-2.0
"""Boot a kernel in QEMU, run one command in it, and bring back what it printed.

Software emulation (TCG) with one CPU is what works everywhere: with two, TCG has corrupted kernel
memory under load, and hardware virtualisation hangs on some hosts that seem to offer it (see
ci.matrix.accelerator).
"""

from __future__ import annotations

import base64
import io
import lzma
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.kernels.debian import Kernel
from ci.matrix.root import archives, pack
from runtime.errors import KmeshError
from runtime.process import run

_MEMORY_MB = 3072
# An emulated kernel's time is counted in its own instructions (2 ns each), and where it waits it does not pass
# here: a busy host makes nothing time out in the guest, and what sleeps there takes no time.
_OWN_TIME = ("-icount", "shift=1,sleep=off")
_DISK = "var/lib/kmesh-disk"
_MODULES = "modules"  # see guest/init
_DISK_MARK = "kmesh-disk "
_PACK_DISK = f"""
status=$?
printf '{_DISK_MARK}'; tar -C /{_DISK} -cf - . | base64 -w0; echo
(exit $status)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command in a booted kernel came to.

    Attributes:
        status: its exit status.
        output: what it wrote to standard output.
        console: what the kernel said, and the command's standard error.
    """

    status: int
    output: str
    console: str


def _qemu(
    kernel: Kernel, initrd: Path, results: Path, *, parameters: str, accelerator: str
) -> list[str]:
    return [
        "qemu-system-x86_64",
        *("-accel", accelerator, "-cpu", "max", "-smp", "1", "-m", str(_MEMORY_MB)),
        *(_OWN_TIME if accelerator == "tcg" else ()),
        *("-kernel", str(kernel.image), "-initrd", str(initrd)),
        # On a busy host an emulated timer looks broken to the kernel, which then panics: no_timer_check.
        *("-append", f"console=ttyS0 panic=-1 no_timer_check rdinit=/init quiet {parameters}"),
        *("-display", "none", "-nodefaults", "-no-reboot"),
        *("-serial", "stdio", "-serial", f"file:{results}"),
    ]


def boot(
    kernel: Kernel,
    command: str,
    *,
    parameters: str = "",
    timeout: float = 600,
    disk: Path | None = None,
    accelerator: str = "tcg",
    extra: Sequence[Path] = (),
) -> Outcome:
    """Boot a kernel, run a shell command in it as root, power off.

    The checkout is at /kmesh, which is also the working directory.

    Args:
        kernel: what to boot.
        command: lines for a POSIX shell.
        parameters: more for the kernel's command line.
        timeout: seconds after which the machine is ended.
        disk: a directory that is at /var/lib/kmesh-disk in it, and as the command left that afterwards:
            what one boot leaves to the next.
        accelerator: QEMU's name of it.
        extra: more archives for its root.

    Raises:
        KmeshError: the kernel did not come to the end of the command.
        CommandError: QEMU or the root file system could not be made or started.
    """
    with tempfile.TemporaryDirectory(prefix="kmesh-boot-") as directory:
        scratch = Path(directory)
        initrd, results = scratch / "initrd", scratch / "results"
        parts = [*archives(scratch), _modules_archive(scratch, kernel), *extra]
        _join(parts, _command_archive(scratch, command, disk), into=initrd)
        argv = _qemu(kernel, initrd, results, parameters=parameters, accelerator=accelerator)
        done = run(argv, timeout=timeout, check=False)
        text = results.read_text(errors="replace") if results.exists() else ""
        console = done.stdout + done.stderr
    found = re.search(r"kmesh-guest-status (\d+)\s*$", text)
    if not found:
        tail = "\n".join(console.splitlines()[-15:])
        raise KmeshError(f"{kernel.release} did not finish; it said last:\n{tail}")
    output, _, packed = text[: found.start()].partition(_DISK_MARK)
    if disk is not None:
        _unpack(packed, disk)
    return Outcome(status=int(found[1]), output=output, console=console)


def _unpack(packed: str, disk: Path) -> None:
    shutil.rmtree(disk)
    disk.mkdir()
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as archive:
        archive.extractall(disk, filter="data")


def _command_archive(scratch: Path, command: str, disk: Path | None) -> Path:
    root = scratch / "command"
    root.mkdir()
    (root / "command").write_text(command + (_PACK_DISK if disk else ""))
    if disk is not None:
        shutil.copytree(disk, root / _DISK)
    archive = scratch / "command.cpio"
    pack(root, archive)
    return archive


def _modules_archive(scratch: Path, kernel: Kernel) -> Path:
    """What /init loads, uncompressed: not every kernel reads what another's tools have packed."""
    target = scratch / "modules" / _MODULES
    target.mkdir(parents=True)
    for module in kernel.modules:
        data = module.read_bytes()
        plain = lzma.decompress(data) if module.suffix == ".xz" else data
        (target / f"{module.name.partition('.')[0]}.ko").write_bytes(plain)
    archive = scratch / "modules.cpio"
    pack(scratch / "modules", archive)
    return archive


def _join(parts: Sequence[Path], last: Path, *, into: Path) -> None:
    with into.open("wb") as initrd:
        for part in (*parts, last):
            with part.open("rb") as archive:
                shutil.copyfileobj(archive, initrd)
            initrd.write(b"\0" * (-initrd.tell() % 512))
