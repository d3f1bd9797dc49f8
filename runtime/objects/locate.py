# SPDX-License-Identifier: Apache-2.0
"""Where the compiled objects and their sources are: said, installed, or in the checkout."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.errors import KmeshError

INSTALLED_OBJECTS = Path("/usr/lib/kmesh/bpf")
FOR_KERNELS = Path("/usr/lib/kmesh/kernels")  # what packages of `kmesh-build host` install
INSTALLED_SOURCES = Path("/usr/share/kmesh/bpf")
INSTALLED_PROGRAMS = Path("/usr/lib/kmesh/bin")
_CHECKOUT = Path(__file__).resolve().parents[2]


def objects_dir() -> Path:
    """The directory with <group>/<name>.bpf.o: $KMESH_OBJECTS, that for this kernel, the installed, the built.

    Raises:
        KmeshError: $KMESH_OBJECTS is no directory, or nothing is installed or built.
    """
    return _find(
        "KMESH_OBJECTS",
        FOR_KERNELS / os.uname().release,
        INSTALLED_OBJECTS,
        _CHECKOUT / "build" / "bpf",
        what="compiled BPF objects",
        hint="build them with `make bpf`, or say where they are in KMESH_OBJECTS",
    )


def sources_dir() -> Path:
    """The directory with <group>/<name>.bpf.c: $KMESH_BPF_SOURCES, the installed one, the checkout's.

    Raises:
        KmeshError: $KMESH_BPF_SOURCES is no directory, or there are none.
    """
    return _find(
        "KMESH_BPF_SOURCES",
        INSTALLED_SOURCES,
        _CHECKOUT / "bpf",
        what="BPF sources",
        hint="only the generic and the compile image carry them; or set KMESH_BPF_SOURCES",
    )


def program(name: str) -> Path:
    """A native program (kmesh-cni, kmesh-gate), from $KMESH_PROGRAMS, the installed ones, the built ones.

    Raises:
        KmeshError: it is not there.
    """
    directory = _find(
        "KMESH_PROGRAMS",
        INSTALLED_PROGRAMS,
        _CHECKOUT / "build" / "bin",
        what="compiled programs",
        hint="build them with `make bpf`, or say where they are in KMESH_PROGRAMS",
    )
    found = directory / name
    if not found.is_file():
        raise KmeshError(f"no {name} in {directory}", hint="run `make bpf`, or reinstall")
    return found


def plugin_program() -> Path:
    """The CNI plugin's program.

    Raises:
        KmeshError: it is not there.
    """
    return program("kmesh-cni")


def object_files(directory: Path, group: str) -> tuple[Path, ...]:
    """The objects of one group ("compat", "enhanced", "probe"), by name; none is no error."""
    return tuple(sorted((directory / group).glob("*.bpf.o")))


def _find(variable: str, *places: Path, what: str, hint: str) -> Path:
    said = os.environ.get(variable)
    if said:
        if not Path(said).is_dir():
            raise KmeshError(f"{variable}={said} is no directory", hint=hint)
        return Path(said)
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(str(place) for place in places)
    raise KmeshError(f"no {what} found (looked in {looked})", hint=hint)
