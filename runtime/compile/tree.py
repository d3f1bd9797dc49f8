# SPDX-License-Identifier: Apache-2.0
"""The whole tree of BPF sources: only what changed is compiled, and a manifest says what there is.

An object is keyed by all that has a say in its bytes: its source, every header, the compiler and
its flags. The key stands in the manifest, so a second run over an unchanged tree starts no compiler.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.compile.clang import FLAGS, CompileError, compile_object, compiler_version, digest

MANIFEST = "manifest.json"
UNSHIPPED = "UNSHIPPED"  # a file in a group's directory: not for images, nor for the prober, yet
_SCHEMA = 1
_SYSTEM = (Path("/usr/include/bpf"), Path("/usr/include/linux/bpf.h"))

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeResult:
    """What a run over the tree did: paths of objects, relative to the output directory."""

    compiled: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]


def _headers(bpf_dir: Path, first: Sequence[Path]) -> Iterable[Path]:
    for directory in (*first, bpf_dir / "include"):
        yield from sorted(directory.rglob("*.h"))
    yield from sorted(bpf_dir.glob("*/*.h"))
    for path in _SYSTEM:
        yield from sorted(path.glob("*.h")) if path.is_dir() else [path]


def _surroundings(bpf_dir: Path, clang: str, first: Sequence[Path]) -> bytes:
    """One digest of all that every object depends on."""
    state = hashlib.sha256(f"{_SCHEMA} {compiler_version(clang)} {FLAGS}".encode())
    for header in _headers(bpf_dir, first):
        if header.is_file():
            # System headers by name alone: where the tree lies has no say.
            state.update(f"{header.name} {digest(header)}".encode())
    return state.digest()


def _recorded(manifest: Path) -> dict[str, Entry]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        return {entry["path"]: entry for entry in content["objects"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # none, or of another time: compile anew


def _sources(bpf_dir: Path, *, unshipped: bool) -> dict[str, Path]:
    """Sources by the object's path; a file in the top directory or in include is none."""
    found = sorted(bpf_dir.glob("*/*.bpf.c"))
    return {
        f"{path.parent.name}/{path.name.removesuffix('.c')}.o": path
        for path in found
        if path.parent.name != "include" and (unshipped or not (path.parent / UNSHIPPED).exists())
    }


def _is_current(entry: Entry | None, *, key: str, target: Path) -> bool:
    return (
        entry is not None
        and entry.get("key") == key
        and target.is_file()
        and digest(target) == entry.get("sha256")
    )


def _remove_orphans(out_dir: Path, *, wanted: Mapping[str, Path]) -> tuple[str, ...]:
    gone = [path for path in out_dir.glob("*/*.o") if str(path.relative_to(out_dir)) not in wanted]
    for path in gone:
        path.unlink()
    return tuple(sorted(str(path.relative_to(out_dir)) for path in gone))


def _write_manifest(out_dir: Path, entries: Iterable[Entry], *, clang: str) -> None:
    content = {
        "schema": _SCHEMA,
        "compiler": compiler_version(clang),
        "flags": list(FLAGS),
        "objects": sorted(entries, key=lambda entry: str(entry["path"])),
    }
    scratch = out_dir / f".{MANIFEST}.{os.getpid()}"
    scratch.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    scratch.replace(out_dir / MANIFEST)


def compile_tree(
    bpf_dir: Path,
    out_dir: Path,
    *,
    jobs: int | None = None,
    clang: str = "clang",
    include: Sequence[Path] = (),
    unshipped: bool = False,
) -> TreeResult:
    """Compile every `<group>/<name>.bpf.c` below a directory into `<group>/<name>.bpf.o`.

    Args:
        bpf_dir: sources by group, with the shared headers in `include/`.
        out_dir: where objects and `manifest.json` go; objects without a source are removed.
        jobs: compilers at a time; one for each processor without.
        clang: the compiler.
        include: directories of headers that come before all others: those of another kernel.
        unshipped: also what no image carries yet.

    Raises:
        ToolMissingError: compiler or headers are not there.
        CompileError: a source does not compile; what did compile is kept and recorded.
    """
    sources = _sources(bpf_dir, unshipped=unshipped)
    if not sources:
        raise CompileError(f"no BPF sources in {bpf_dir}", hint="they are <group>/<name>.bpf.c")
    out_dir.mkdir(parents=True, exist_ok=True)
    recorded = _recorded(out_dir / MANIFEST)
    around = _surroundings(bpf_dir, clang, include)
    directories = [*include, bpf_dir / "include"]
    entries: dict[str, Entry] = {}
    compiled: list[str] = []

    def make(name: str, source: Path) -> CompileError | None:
        key = hashlib.sha256(around + name.encode() + source.read_bytes()).hexdigest()
        old, target = recorded.get(name), out_dir / name
        if old is not None and _is_current(old, key=key, target=target):
            entries[name] = old
            return None
        try:
            done = compile_object(source, target, include=directories, clang=clang)
        except CompileError as error:
            return error
        entries[name] = {
            "path": name,
            "sha256": done.sha256,
            "source_sha256": done.source_sha256,
            "key": key,
        }
        compiled.append(name)
        return None

    with ThreadPoolExecutor(max_workers=jobs or os.cpu_count() or 1) as pool:
        failures = [failure for failure in pool.map(make, sources, sources.values()) if failure]
    removed = _remove_orphans(out_dir, wanted=sources)
    _write_manifest(out_dir, entries.values(), clang=clang)
    if failures:
        raise failures[0]
    return TreeResult(
        compiled=tuple(sorted(compiled)),
        unchanged=tuple(sorted(set(entries) - set(compiled))),
        removed=removed,
    )
