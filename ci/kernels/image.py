# SPDX-License-Identifier: Apache-2.0
"""The BTF inside a bootable kernel image, which is a loader around a compressed ELF file."""

from __future__ import annotations

import io
import lzma
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from runtime.errors import KmeshError


def _tool(*argv: str) -> Callable[[bytes], bytes]:
    def decompress(data: bytes) -> bytes:
        # What follows the compressed part is not its own: the tool's complaint is expected.
        return subprocess.run(argv, input=data, capture_output=True, check=False).stdout

    return decompress


_COMPRESSIONS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b\x08": lambda data: zlib.decompressobj(31).decompress(data),
    b"\xfd7zXZ\x00": lambda data: lzma.LZMADecompressor().decompress(data),
    b"\x28\xb5\x2f\xfd": _tool("zstd", "-dcq"),
    b"\x02\x21\x4c\x18": _tool("lz4", "-dcq"),
}


def _payloads(image: bytes) -> Iterator[bytes]:
    for magic, decompress in _COMPRESSIONS.items():
        at = image.find(magic)
        while at >= 0:
            try:
                payload = decompress(image[at:])
            except (zlib.error, lzma.LZMAError):
                payload = b""
            if payload.startswith(b"\x7fELF"):
                yield payload
            at = image.find(magic, at + 1)


def btf_of(image: Path) -> bytes:
    """The raw BTF of a kernel image (vmlinuz or vmlinux).

    Raises:
        KmeshError: no kernel was found in it, or the kernel has no BTF.
    """
    data = image.read_bytes()
    candidates = [data] if data.startswith(b"\x7fELF") else _payloads(data)
    for candidate in candidates:
        try:
            section = ELFFile(io.BytesIO(candidate)).get_section_by_name(".BTF")
        except ELFError:
            continue
        if section is None:
            raise KmeshError(f"{image}: this kernel was built without BTF")
        return bytes(section.data())
    raise KmeshError(f"{image}: no kernel found in it", hint="zstd and lz4 must be installed")
