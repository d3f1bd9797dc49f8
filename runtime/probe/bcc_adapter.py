# SPDX-License-Identifier: Apache-2.0
"""bcc, for what it is good at: the kernel's structures, from its headers, where there is no BTF.

bcc compiles against a kernel's headers as that kernel was configured, so it knows a structure's layout
where BTF does not. It compiles functions here that return constants, whose values are read from the
code: nothing is loaded. It is optional (the distribution's package, never PyPI's project of that name).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.compile.evidence import header_places
from runtime.errors import KmeshError
from runtime.process import CommandError, run

_OR_BTF = "or use a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y)"
INSTALL_BCC = (
    "use the generic image (kmesh), which has bcc, or install the distribution's bcc for Python"
    f" (Debian: python3-bpfcc), {_OR_BTF}"
)
INSTALL_HEADERS = (
    "install the headers of this very kernel (Debian: linux-headers-$(uname -r)); in a container"
    f" mount the host's /lib/modules and /usr/src; {_OR_BTF}"
)
_KHEADERS = Path("sys/kernel/kheaders.tar.xz")  # CONFIG_IKHEADERS
_CHILD = Path(__file__).with_name("bcc_child.py")
_SECONDS = 120.0  # two of them natively; emulated and busy, a minute
_SYSTEM = (Path("/usr/bin/python3"), Path("/usr/lib/python3/dist-packages/bcc/__init__.py"))
# bcc brings a linux/bpf.h and helpers of its own time along, which newer headers do not go with.
_FLAGS = ("-w", "-ferror-limit=0", "-D_UAPI__LINUX_BPF_H__", "-D__BPF_HELPERS_H")
# As Kbuild has it: unnamed members of a named type since 6.19, and what x86 insists on.
_KBUILD = ("-fms-extensions", "-DCC_USING_FENTRY")
_PROLOGUE = """\
#include <linux/version.h>
#define BCC_SEC(name) __attribute__((section(name), used))
#undef _UAPI__LINUX_BPF_H__
#include <uapi/linux/bpf.h>
#if defined(CONFIG_RANDSTRUCT) || defined(CONFIG_GCC_PLUGIN_RANDSTRUCT)
#error "the layout of this kernel's structures is randomized (CONFIG_RANDSTRUCT)"
#endif
"""
_INCLUDES = ("net/sock.h", "linux/tcp.h", "linux/skmsg.h", "linux/net.h", "linux/fs.h")
_MARK = "kmesh-asked"  # the file that errors in what was asked are said to be in
_ERROR = re.compile(r"^(\S+?):(\d+):\d+: (?:fatal )?error: (.*)$", re.MULTILINE)


class HeadersError(KmeshError):
    """The kernel's headers cannot be read; the hint says what would mend that."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Where a kernel's headers are: one directory, or Debian's two, or the kernel's own archive."""

    places: tuple[Path, ...]

    def __str__(self) -> str:
        return str(self.places[0])


def headers(release: str, *, root: Path = Path("/")) -> Headers | None:
    """The headers of a kernel, None when there are none of this very one.

    Args:
        release: `uname -r`.
        root: the directory to look under.
    """
    said = os.environ.get("BCC_KERNEL_SOURCE")
    places = (Path(said),) if said else tuple(header_places(release, root=root))
    for first, place in enumerate(places):
        told = place / "include/generated/utsrelease.h"
        if told.is_file() and f'"{release}"' in told.read_text(errors="replace"):
            # What follows a build directory is what its Makefile includes.
            return Headers(places[first:])
    archive = root / _KHEADERS
    return Headers((archive,)) if archive.is_file() and not said else None


def unavailable(release: str, *, root: Path = Path("/")) -> tuple[str, str] | None:
    """Why bcc cannot be used for this kernel and what would mend it; None when it can be tried."""
    if _interpreter() is None:
        return "bcc for Python is not installed", INSTALL_BCC
    if headers(release, root=root) is None:
        return f"bcc is here, the headers of kernel {release} are not", INSTALL_HEADERS
    return None


def constants(
    expressions: Mapping[str, Sequence[str]], *, found: Headers
) -> tuple[dict[str, list[int]], list[str]]:
    """The values of constant expressions under a kernel's headers.

    Args:
        expressions: C, by what they are about.
        found: the headers.

    Returns:
        the values, by what they are about, and what the headers do not know.

    Raises:
        HeadersError: bcc is not there, or cannot compile with these headers at all.
    """
    wanted = dict(expressions)
    unknown: list[str] = []
    with _unpacked(found) as places:
        while True:
            names = list(wanted)
            code, complaints, last = _compile([wanted[name] for name in names], places)
            if code is not None:
                values = iter(map(_value, code))
                return {name: [next(values) for _ in wanted[name]] for name in names}, unknown
            others = [said for file, _, said in complaints if file != _MARK]
            if others or not complaints:
                raise HeadersError(
                    f"bcc cannot compile with the headers in {found}"
                    f" ({others[0] if others else last})",
                    hint="use a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y)",
                )
            unknown += sorted({names[int(line) - 1] for _, line, _ in complaints})
            wanted = {name: wanted[name] for name in names if name not in unknown}


def _compile(
    asked: Sequence[Sequence[str]], places: Sequence[Path]
) -> tuple[list[bytes] | None, list[tuple[str, str, str]], str]:
    """The code of a function for each expression, or what the compiler said: file, line, words; how it ended."""
    interpreter = _interpreter()
    if interpreter is None:
        raise HeadersError("bcc for Python is not installed", hint=INSTALL_BCC)
    text, count = _text(asked)
    source = next((one for one in places if (one / "include/linux/kconfig.h").is_file()), None)
    if source is None:  # bcc would look elsewhere, and try modprobe
        raise HeadersError(f"the headers in {places[0]} are not whole", hint=INSTALL_HEADERS)
    request = {
        "text": text,
        "flags": [*_FLAGS, *_KBUILD, *_generated(place for place in places if place != source)],
        "functions": [f"kmesh_{number}" for number in range(count)],
    }
    try:
        done = run(
            [str(interpreter), "-I", str(_CHILD)],
            env={**os.environ, "BCC_KERNEL_SOURCE": str(source)},
            stdin=json.dumps(request).encode(),
            timeout=_SECONDS,
            check=False,
        )
    except CommandError as error:
        raise HeadersError(f"bcc did not compile: {str(error).splitlines()[0]}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return None, _ERROR.findall(done.stderr), last
    return [bytes.fromhex(item) for item in json.loads(done.stdout)], [], ""


def _text(asked: Sequence[Sequence[str]]) -> tuple[str, int]:
    """A function for each expression, each told to be in a line that stands for what it is about."""
    lines, count = [_PROLOGUE, *(f"#include <{name}>" for name in _INCLUDES)], 0
    for number, expressions in enumerate(asked, start=1):
        for expression in expressions:
            lines.append(f'#line {number} "{_MARK}"')
            lines.append(f"u64 kmesh_{count}(void *ctx) {{ return {expression}; }}")
            count += 1
    return "\n".join([*lines, ""]), count


def _value(code: bytes) -> int:
    """What a function returns that does nothing else: `r0 = constant`, in one of its forms."""
    opcode, low = code[0], int.from_bytes(code[4:8], "little", signed=True)
    if opcode == 0x18:  # 64 bits, in two instructions
        return (low & 0xFFFFFFFF) | int.from_bytes(code[12:16], "little") << 32
    if opcode in (0xB7, 0xB4):
        return low
    raise HeadersError(f"bcc made no constant of one (instruction {code[:8].hex()})")


def _generated(places: Iterable[Path]) -> Iterator[str]:
    """The options for the directories whose headers came of a configuration."""
    for place in places:
        for directory in (
            place / "include",
            *sorted(place.glob("arch/*/include/generated")),
            *sorted(place.glob("arch/*/include/generated/uapi")),
            place / "include/generated/uapi",
        ):
            yield f"-I{directory}"


@contextmanager
def _unpacked(found: Headers) -> Iterator[tuple[Path, ...]]:
    """The directories of the headers. bcc would leave an archive's in /tmp, where others may write."""
    if not found.places[0].is_file():
        yield found.places
        return
    with tempfile.TemporaryDirectory(prefix="kmesh-headers-") as name:
        try:
            with tarfile.open(found.places[0]) as archive:
                archive.extractall(name, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise HeadersError(f"cannot read {found}: {error}", hint=INSTALL_HEADERS) from error
        yield (Path(name),)


def _interpreter() -> Path | None:
    """The Python that has bcc: this one, or the distribution's."""
    if importlib.util.find_spec("bcc") is not None:
        return Path(sys.executable)
    python, module = _SYSTEM
    return python if python.exists() and module.exists() else None
