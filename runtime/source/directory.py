# SPDX-License-Identifier: Apache-2.0
"""Which files of a directory hold configuration, and which of them changed.

Files are told apart by what `stat` says, through symbolic links: that sees files that are replaced
atomically, and a ConfigMap's volume, where one hidden link (`..data`) moves all of them at once.
Names that begin with a dot or end with a tilde are editors' and the kubelet's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TEXTS = (".yaml", ".yml", ".json")
_BINARIES = (".pb",)  # recorded responses of Istiod
_LARGEST = 64 << 20  # bytes; a list of 10,000 services takes a tenth of that

_Signature = tuple[int, int, int, int]
_UNREAD: _Signature = (-1, -1, -1, -1)


@dataclass(slots=True)
class Scan:
    """What changed since the last scan: file (relative) → what is in it, or why it cannot be read."""

    texts: dict[str, str] = field(default_factory=dict)
    binaries: dict[str, bytes] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)


class Directory:
    """The files below a directory; every `scan` tells what is new since the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[str, _Signature] = {}

    def scan(self) -> Scan:
        """Find what changed, by one walk.

        Raises:
            OSError: a directory cannot be read: nothing is known, so nothing has changed.
        """
        found = dict(_walk(self.path))
        scan = Scan(removed=self._seen.keys() - found.keys())
        for name, signature in found.items():
            if self._seen.get(name) != signature and not self._read(name, scan):
                found[name] = _UNREAD
        self._seen = found
        return scan

    def _read(self, name: str, scan: Scan) -> bool:
        """Read a file; returns whether that is settled.

        What is denied now may be allowed soon, and `chmod` leaves no trace in the signature.
        """
        path = self.path / name
        try:
            if path.stat().st_size > _LARGEST:
                scan.unreadable[name] = f"larger than {_LARGEST >> 20} MiB"
            elif name.endswith(_BINARIES):
                scan.binaries[name] = path.read_bytes()
            else:
                scan.texts[name] = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            scan.unreadable[name] = f"not UTF-8 text ({error.reason} at byte {error.start})"
        except OSError as error:
            scan.unreadable[name] = f"cannot be read ({error.strerror})"
            return False
        return True


def _walk(top: Path) -> Iterator[tuple[str, _Signature]]:
    """Every configuration file below `top`, by its relative name, in order."""
    os.scandir(top).close()
    entered = set()
    for directory, subdirectories, files in os.walk(top, onerror=_unless_gone, followlinks=True):
        real = os.path.realpath(directory)
        if real in entered:  # a link that leads back up
            subdirectories.clear()
            continue
        entered.add(real)
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        for name in sorted(filter(_is_configuration, files)):
            path = Path(directory, name)
            signature = _signature(path)
            if signature:
                yield str(path.relative_to(top)), signature


def _unless_gone(error: OSError) -> None:
    """A directory that cannot be read has not lost its files; one that has just gone has."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _is_configuration(name: str) -> bool:
    return name.endswith((*_TEXTS, *_BINARIES)) and not name.startswith((".", "#"))


def _signature(path: Path) -> _Signature | None:
    """What tells one state of a file from another; None when it is gone, or no plain file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return (0, 0, 0, 0)  # reading it will say why
    if not path.is_file():
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
