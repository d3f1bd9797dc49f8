# SPDX-License-Identifier: Apache-2.0
"""What a build keeps outside the checkout, under content keys: roots, wheels, a private engine's data.

An entry appears whole or not at all: it is made in a scratch directory beside its place and
renamed. So an interrupted build leaves nothing that a later one could mistake for a result.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import KmeshError


def cache_dir() -> Path:
    """$KMESH_CACHE, or kmesh under $XDG_CACHE_HOME, or ~/.cache/kmesh."""
    if own := os.environ.get("KMESH_CACHE"):
        return Path(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache").absolute() / "kmesh"


def content_key(*parts: str | bytes) -> str:
    """A key of 64 hex digits that is the same when, and only when, all parts are the same."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def entry(cache: Path, kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The directory kept under a key, made first where it is not there yet.

    Args:
        cache: the cache's directory.
        kind: what the entry is ("roots", "wheels"): a directory below the cache.
        key: its content key.
        make: fills an empty directory; what it raises leaves no entry.

    Raises:
        KmeshError: the file system is full or read-only.
    """
    place = cache / kind / key[:32]
    if place.is_dir():
        os.utime(place)
        return place
    with translate_os_error(cache):
        place.parent.mkdir(parents=True, exist_ok=True)
        _publish(place, make)
    return place


def _publish(place: Path, make: Callable[[Path], None]) -> None:
    scratch = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        make(scratch)
        scratch.rename(place)
    except OSError:
        if not place.is_dir():  # another build was quicker: its entry is as good
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def translate_os_error(place: Path) -> Iterator[None]:
    """Turn a full or read-only file system into one line that says so."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(place) from error
        if error.errno in (errno.EROFS, errno.EACCES):
            hint = "set KMESH_CACHE to a directory that can be written"
            raise KmeshError(f"cannot write below {place} ({error.strerror})", hint=hint) from error
        raise


def disk_full(place: Path) -> KmeshError:
    """The error for a file system without room."""
    hint = "free some space, or set KMESH_CACHE to a larger file system; then run it again"
    return KmeshError(f"no space left on the file system of {place}", hint=hint)


def require_space(place: Path, need: int) -> None:
    """Refuse to start what cannot end.

    Args:
        place: a path, existing or not, on the file system concerned.
        need: bytes that will be written.

    Raises:
        KmeshError: less is free.
    """
    there = next(path for path in [place, *place.parents] if path.exists())
    free = shutil.disk_usage(there).free
    if free < need:
        hint = "free some space, or set KMESH_CACHE to a larger file system"
        have, want = free / 1e6, need / 1e6
        raise KmeshError(
            f"{have:.0f} MB free on the file system of {there}, {want:.0f} MB needed", hint=hint
        )


@contextmanager
def lock(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; `waiting` is called once when another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(cache: Path, *, need: int) -> Iterator[Path]:
    """A directory for the time of a `with` block; what killed builds left goes first.

    Args:
        cache: the cache's directory.
        need: bytes that will be written to it.

    Raises:
        KmeshError: less is free, or the file system fills up meanwhile.
    """
    with translate_os_error(cache):
        cache.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache)
        require_space(cache, need)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".build-{os.getpid()}-") as name:
            yield Path(name)


def _remove_abandoned(cache: Path) -> None:
    left = [*cache.glob(".build-*"), *cache.glob("roots/.*"), *cache.glob("wheels/.*")]
    for path in left:
        numbers = [part for part in path.name.replace(".", "-").split("-") if part.isdigit()]
        if not any(Path(f"/proc/{number}").exists() for number in numbers):
            shutil.rmtree(path, ignore_errors=True)
