# SPDX-License-Identifier: Apache-2.0
"""The BPF objects that go into the images: compiled, looked into, and loaded once where that is allowed.

Images have been published with empty objects in them (Kmesh #767). Here an object that is empty,
foreign or that the kernel refuses stops the build, with its name and the reason.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.bpf.lib import BpfError
from runtime.bpf.objects import BpfObject, LoadError
from runtime.compile.tree import compile_tree
from runtime.errors import KmeshError
from runtime.objects.info import ObjectInfo
from runtime.objects.inspect import inspect_object

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ObjectFile:
    """A compiled object that passed inspection.

    Attributes:
        name: its path below the directory of objects: "group/name.bpf.o".
        loaded: whether this kernel's verifier accepted it; None: it could not be asked.
    """

    name: str
    path: Path
    info: ObjectInfo
    loaded: bool | None


@dataclass(frozen=True)
class ObjectSet:
    """All objects of a build, the manifest that goes with them, and the native programs."""

    objects: tuple[ObjectFile, ...]
    manifest: bytes
    programs: tuple[Path, ...] = ()

    @property
    def compiler(self) -> str:
        """The compiler's name and version."""
        return str(json.loads(self.manifest).get("compiler", ""))


def make_objects(
    sources: Path, target: Path, *, load: bool, say: Callable[[str], None]
) -> ObjectSet:
    """Compile a tree of sources and check what came out.

    Args:
        sources: the tree (bpf/).
        target: where the objects go.
        load: try them on this kernel.
        say: told what happens.

    Raises:
        KmeshError: a source does not compile, or an object is not fit to be shipped.
    """
    done = compile_tree(sources, target)
    say(f"{len(done.compiled)} objects compiled, {len(done.unchanged)} unchanged")
    manifest = (target / MANIFEST).read_bytes()
    names = sorted(str(item["path"]) for item in json.loads(manifest)["objects"])
    objects = tuple(check_object(target / name, name, load=load) for name in names)
    tried = sum(item.loaded is True for item in objects)
    verb = f"{tried} of them loaded on this kernel" if tried else "not tried on this kernel"
    say(f"{len(objects)} objects inspected, {verb}")
    return ObjectSet(objects, manifest)


def check_object(path: Path, name: str, *, load: bool) -> ObjectFile:
    """Inspect an object and, where allowed, have the kernel load it.

    Raises:
        ObjectError: it is empty, foreign, cut short, or lacks a licence or BTF.
        KmeshError: the kernel refused it.
    """
    info = inspect_object(path)
    return ObjectFile(name, path, info, try_load(path, name) if load else None)


def try_load(path: Path, name: str) -> bool | None:
    """Whether the kernel accepts an object; None where it may not be asked.

    Raises:
        KmeshError: it was asked, and refused.
    """
    try:
        with BpfObject(path) as item:
            for table in item.maps():
                if not table.startswith("."):
                    item.set_pin_path(table, None)  # a trial leaves nothing behind
            item.load()
    except LoadError as error:
        if error.errno == errno.EPERM:  # EACCES is how the verifier says no
            return None
        raise _refused(name, error) from error
    except BpfError as error:
        raise _refused(name, error) from error
    return True


def _refused(name: str, error: BpfError) -> KmeshError:
    hint = f"see all of it with: kmesh-build inspect {name}; --no-load builds without this check"
    return KmeshError(f"object {name} does not load on this kernel: {error}", hint=hint)


def as_json(item: ObjectInfo) -> dict[str, Any]:
    """An object's facts, for `--output json`."""
    from dataclasses import asdict

    return {**asdict(item), "path": str(item.path)}
