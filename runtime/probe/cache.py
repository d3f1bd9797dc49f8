# SPDX-License-Identifier: Apache-2.0
"""Findings kept between runs, under a key of everything that they depend on.

Kernel build, BTF, live patches, objects, every fact about host and process, this version of Kmesh:
when any part differs the key does, and the file is not believed. Findings that say `denied` or
`inconclusive` are never kept: what refused may have no trace in the facts.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.objects.info import ObjectInfo, info_from_json
from runtime.probe.facts import Facts
from runtime.probe.report import finding_from_json, finding_json
from runtime.probe.verdict import Finding, Verdict

_NEVER_KEPT = frozenset({Verdict.DENIED, Verdict.INCONCLUSIVE})
_FINDINGS = "probe-cache.json"
_INSPECTIONS = "objects-cache.json"
_PROBER = Path(__file__).parent
_OBJECTS = _PROBER.parent / "objects"


@dataclass(frozen=True, slots=True)
class Cached:
    findings: tuple[Finding, ...]
    taken_at: str


def cache_key(
    facts: Facts, *, btf: Path | None, objects: str, version: str, variant: Iterable[str] = ()
) -> str:
    """The key of a run.

    Args:
        facts: the host and this process.
        btf: the kernel's BTF, whose content counts.
        objects: a digest of the objects.
        version: of Kmesh.
        variant: whatever else made the run what it was (overrides, say).
    """
    parts = {
        "facts": facts.to_json(),
        "kconfig": _digest(json.dumps(facts.kconfig, sort_keys=True).encode()),
        "btf": _digest_of(btf),
        "objects": objects,
        "image": os.environ.get("KMESH_IMAGE_DIGEST", ""),
        "version": version,
        "code": _code_digest(_PROBER),
        "variant": sorted(variant),
    }
    return _digest(json.dumps(parts, sort_keys=True).encode())


def load(key: str) -> Cached | None:
    """The findings kept under this key, None when there are none that can be believed."""
    try:
        data = read_json(_FINDINGS)
        if data["key"] != key:
            return None
        findings = tuple(finding_from_json(item) for item in data["findings"])
        return Cached(findings, str(data["taken_at"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def store(key: str, findings: Iterable[Finding], *, taken_at: str) -> bool:
    """Keep findings, unless one of them must not be; where nothing can be written, nothing is.

    Returns:
        whether they were kept.
    """
    kept = list(findings)
    if any(finding.verdict in _NEVER_KEPT for finding in kept):
        return False
    found = [finding_json(item) for item in kept]
    return write_json(_FINDINGS, {"key": key, "taken_at": taken_at, "findings": found})


class Inspections:
    """What objects need, by the hash of their content: reading ELF takes longer than the probes.

    Args:
        enabled: without, nothing is believed or kept.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._known: dict[str, dict[str, Any]] = {}
        self._new = False
        with suppress(OSError, ValueError, LookupError, TypeError):
            data = read_json(_INSPECTIONS) if enabled else {}
            if data.get("code") == _code_digest(_OBJECTS):
                self._known = dict(data["objects"])

    def inspect(self, path: Path) -> ObjectInfo:
        """As `inspect_object`.

        Raises:
            ObjectError: it is not an object Kmesh can use.
        """
        digest = _digest_of(path)
        with suppress(LookupError, TypeError, ValueError):
            return info_from_json(dict(self._known[digest]), path=path)
        # pyelftools takes as long to import as all probes to run.
        from runtime.objects.inspect import inspect_object

        info = inspect_object(path)
        self._known[digest] = info.to_json()
        self._new = True
        return info

    def keep(self) -> None:
        """Write what was learnt, where that is possible."""
        if self._enabled and self._new:
            write_json(_INSPECTIONS, {"code": _code_digest(_OBJECTS), "objects": self._known})


def read(name: str) -> bytes:
    """A file of ours.

    Raises:
        OSError: it is not there, or somebody else could have written it.
    """
    with (directory() / name).open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{name} can be written by others")
        return file.read()


def read_json(name: str) -> dict[str, Any]:
    """A file of ours that holds an object.

    Raises:
        OSError, ValueError, TypeError: it does not, or cannot be believed.
    """
    data = json.loads(read(name))
    if not isinstance(data, dict):
        raise TypeError(f"{name} is no object")
    return data


def write_json(name: str, data: dict[str, Any]) -> bool:
    return write(name, json.dumps(data).encode())


def write(name: str, data: bytes) -> bool:
    """Replace a file of ours in one step; whether that could be."""
    place = directory()
    part = place / f".{name}.{os.getpid()}"
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        part.replace(place / name)
    except OSError:
        with suppress(OSError):
            part.unlink()
        return False
    return True


def objects_digest(paths: Iterable[Path]) -> str:
    """One digest of many files: their names and contents."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.parent.name}/{path.name}\0{_digest_of(path)}\n".encode())
    return total.hexdigest()


def _code_digest(package: Path) -> str:
    """Tells one state of our own sources from another, for those who work on them."""
    states = ((path, path.stat()) for path in sorted(package.rglob("*.py")))
    lines = (f"{path.name} {state.st_size} {state.st_mtime_ns}" for path, state in states)
    return _digest("\n".join(lines).encode())


def directory() -> Path:
    """/run goes with the kernel that was probed; a user's own cache where /run is not ours."""
    said = os.environ.get("KMESH_RUN_DIR")
    if said:
        return Path(said)
    if os.geteuid() == 0:
        return Path("/run/kmesh")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kmesh"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of(path: Path | None) -> str:
    try:
        return _digest(path.read_bytes()) if path else ""
    except OSError:
        return ""
