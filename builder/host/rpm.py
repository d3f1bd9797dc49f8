# SPDX-License-Identifier: Apache-2.0
"""A .rpm of the objects, for hosts without containers: written here, for the compile image has no rpmbuild.

Format: https://rpm-software-management.github.io/rpm/manual/format.html (v4: lead, signature header,
header, payload), payload: cpio in the newc format, gzipped.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.host.package import PackageFacts

_LEAD = struct.Struct(">4sBBhh66shh16s")
_HEADER = struct.Struct(">3sB4sII")
_ENTRY = struct.Struct(">IIII")
_INT16, _INT32, _STRING, _BINARY, _STRINGS, _I18N = 3, 4, 6, 7, 8, 9
_ARCHITECTURES = {"x86_64": 1, "aarch64": 19}
_REGULAR, _MODE = 0o100000, 0o644

Value = tuple[int, str | bytes | Sequence[str] | Sequence[int]]


def write_rpm(target: Path, facts: PackageFacts, files: Mapping[str, bytes], *, epoch: int) -> Path:
    """Write the package.

    Args:
        target: a directory for it.
        facts: name, version and so on.
        files: path without the leading slash → content.
        epoch: the date of everything, in seconds since 1970.

    Returns:
        the package.
    """
    version = facts.version.replace("-", "~")  # not allowed in rpm's versions
    names = sorted(files)
    archive = _cpio({name: files[name] for name in names}, epoch)
    payload = gzip.compress(archive, mtime=0)
    header = _header(_fields(facts, version, names, files, archive, payload, epoch), region=63)
    signature = _header(
        {
            273: (_STRING, hashlib.sha256(header).hexdigest()),
            1000: (_INT32, [len(header) + len(payload)]),
            1004: (_BINARY, hashlib.md5(header + payload).digest()),  # noqa: S324 - the format's
            1007: (_INT32, [len(archive)]),
        },
        region=62,
    )
    name = f"{facts.name}-{version}-1"
    lead = _LEAD.pack(
        b"\xed\xab\xee\xdb", 3, 0, 0, _ARCHITECTURES.get(facts.machine, 1),
        name.encode()[:65], 1, 5, b"",
    )  # fmt: skip
    path = target / f"{name}.{facts.machine}.rpm"
    path.write_bytes(lead + signature + b"\0" * (-len(signature) % 8) + header + payload)
    return path


def _fields(
    facts: PackageFacts,
    version: str,
    names: Sequence[str],
    files: Mapping[str, bytes],
    archive: bytes,
    payload: bytes,
    epoch: int,
) -> dict[int, Value]:
    directories = sorted({f"/{Path(name).parent}/" for name in names})
    count = len(names)
    return {
        100: (_STRINGS, ["C"]),
        1000: (_STRING, facts.name),
        1001: (_STRING, version),
        1002: (_STRING, "1"),
        1004: (_I18N, [facts.summary]),
        1005: (_I18N, [facts.description]),
        1006: (_INT32, [epoch]),
        1007: (_STRING, "localhost"),
        1009: (_INT32, [sum(map(len, files.values()))]),
        1011: (_STRING, facts.vendor),
        1014: (_STRING, "GPL-2.0-only"),
        1016: (_I18N, ["Unspecified"]),
        1020: (_STRING, facts.url),
        1021: (_STRING, "linux"),
        1022: (_STRING, facts.machine),
        1028: (_INT32, [len(files[name]) for name in names]),
        1030: (_INT16, [_REGULAR | _MODE] * count),
        1033: (_INT16, [0] * count),
        1034: (_INT32, [epoch] * count),
        1035: (_STRINGS, [hashlib.sha256(files[name]).hexdigest() for name in names]),
        1036: (_STRINGS, [""] * count),
        1037: (_INT32, [0] * count),
        1039: (_STRINGS, ["root"] * count),
        1040: (_STRINGS, ["root"] * count),
        1044: (_STRING, f"{facts.name}-{version}-1.src.rpm"),
        1045: (_INT32, [-1 & 0xFFFFFFFF] * count),
        1047: (_STRINGS, [facts.name]),
        1048: (_INT32, [(1 << 24) | 2 | 8] * 3),  # rpmlib(...), "<="
        1049: (
            _STRINGS,
            [
                "rpmlib(CompressedFileNames)",
                "rpmlib(FileDigests)",
                "rpmlib(PayloadFilesHavePrefix)",
            ],
        ),
        1050: (_STRINGS, ["3.0.4-1", "4.6.0-1", "4.0-1"]),
        1095: (_INT32, [1] * count),
        1096: (_INT32, list(range(1, count + 1))),
        1097: (_STRINGS, [""] * count),
        1112: (_INT32, [8]),
        1113: (_STRINGS, [f"{version}-1"]),
        1116: (_INT32, [directories.index(f"/{Path(name).parent}/") for name in names]),
        1117: (_STRINGS, [Path(name).name for name in names]),
        1118: (_STRINGS, directories),
        1124: (_STRING, "cpio"),
        1125: (_STRING, "gzip"),
        1126: (_STRING, "9"),
        5011: (_INT32, [8]),  # files' digests are SHA-256
        5092: (_STRINGS, [hashlib.sha256(payload).hexdigest()]),
        5093: (_INT32, [8]),
        5097: (_STRINGS, [hashlib.sha256(archive).hexdigest()]),
    }


def _header(fields: Mapping[int, Value], *, region: int) -> bytes:
    """A header structure; its first entry is the region that says that all of it belongs together."""
    store, entries = bytearray(), []
    for tag, (kind, value) in sorted(fields.items()):
        data, count = _encode(kind, value)
        store += b"\0" * (-len(store) % {_INT16: 2, _INT32: 4}.get(kind, 1))
        entries.append(_ENTRY.pack(tag, kind, len(store), count))
        store += data
    trailer_at = len(store)
    size = _ENTRY.size * (len(entries) + 1)
    store += _ENTRY.pack(region, _BINARY, -size & 0xFFFFFFFF, 16)
    head = _ENTRY.pack(region, _BINARY, trailer_at, 16)
    intro = _HEADER.pack(b"\x8e\xad\xe8", 1, b"\0" * 4, len(entries) + 1, len(store))
    return intro + head + b"".join(entries) + bytes(store)


def _encode(kind: int, value: str | bytes | Sequence[str] | Sequence[int]) -> tuple[bytes, int]:
    if isinstance(value, bytes):
        return value, len(value)
    if isinstance(value, str):
        return value.encode() + b"\0", 1
    if kind in (_STRINGS, _I18N):
        return b"".join(str(item).encode() + b"\0" for item in value), len(value)
    letter = "H" if kind == _INT16 else "I"
    return struct.pack(f">{len(value)}{letter}", *value), len(value)


def _cpio(files: Mapping[str, bytes], epoch: int) -> bytes:
    parts = [
        _cpio_entry(f"./{name}", data, inode=number, mode=_REGULAR | _MODE, epoch=epoch)
        for number, (name, data) in enumerate(files.items(), 1)
    ]
    return b"".join([*parts, _cpio_entry("TRAILER!!!", b"", inode=0, mode=0, epoch=0)])


def _cpio_entry(name: str, data: bytes, *, inode: int, mode: int, epoch: int) -> bytes:
    fields = (inode, mode, 0, 0, 1, epoch, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = "070701" + "".join(f"{field:08x}" for field in fields) + name + "\0"
    padded = head.encode() + b"\0" * (-len(head) % 4)
    return padded + data + b"\0" * (-len(data) % 4)
