# SPDX-License-Identifier: Apache-2.0
"""The Debian root: bootstrapped once with mmdebstrap, cut into a base layer and a toolchain layer.

The base is what Python, libbpf and a person with a shell need, and no package manager: busybox
stands for a shell and the usual tools. The toolchain is clang, llvm-strip, the headers, bcc and
bpftool. Perl, debconf and dpkg itself are left out, for nothing is installed later.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder.cache import content_key, entry, file_sha256, require_space
from builder.longrun import run_logged
from builder.rootfs import apt
from builder.rootfs.split import Layer, split
from runtime.errors import KmeshError
from runtime.process import CommandError

SUITE = "bookworm"
BASE_PACKAGES = (
    "base-files",
    "base-passwd",
    "busybox",
    "dash",
    "libbpf1",
    "libc-bin",
    "libstdc++6",  # grpc's wheel expects it of the system
    "netbase",
    "python3",
)
TOOLCHAIN_PACKAGES = (
    "bpftool",
    "clang",
    "libbpf-dev",
    "linux-libc-dev",
    "llvm",
    "python3-bpfcc",
    "xz-utils",
)
# Everything is dated no later than this (Debian 12.0): the root depends on its packages, not on a day.
EPOCH = 1686355200
_VERSION = "4"  # of what this module does to a root: part of the key
_SPACE = 2_500_000_000
_STANDING_IN = ("usr-is-merged",)  # without it, usrmerge brings all of perl
CUT = frozenset(
    {
        "binutils",
        "debconf",
        "debianutils",
        "dpkg",
        "init-system-helpers",
        "libc6-dev",
        "libclang1-14",
        "libgcc-12-dev",
        "libobjc-12-dev",
        "libstdc++-12-dev",
        "llvm-14-linker-tools",
        "llvm-14-tools",
        "mawk",
        "perl",
        "perl-base",
        "tar",
        "usr-is-merged",
    }
)
LAYERS = (
    Layer("base", BASE_PACKAGES, CUT),
    Layer("toolchain", TOOLCHAIN_PACKAGES, CUT),
)
_UNPACKED_NOT = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/lib/*/gconv/*",
    "/usr/lib/llvm-*/lib/clang/*/lib/*",  # sanitizer runtimes: BPF has none
)
DROPPED = (
    "dev/*",
    "etc/*-",  # passwd- and its like: backups
    "etc/apt/*",
    "etc/machine-id",
    "usr/lib/llvm-14/build/*",
    "usr/lib/llvm-14/share/*",
    "usr/share/python3/runtime.d/*",
    "var/cache/*/*",
    "var/lib/apt/*",
    "var/lib/dpkg/*-old",
    "var/lib/systemd/*",
    "var/log/*",
    "var/tmp/*",
    "tmp/*",
)
# The only LLVM tool that compiling needs beside clang: it drops DWARF, and keeps BTF.
_LLVM_KEPT = ("clang", "clang-14", "llvm-strip", "llvm-strip-14", "llvm-objcopy", "llvm-objcopy-14")


@dataclass(frozen=True)
class DebianRoot:
    """A bootstrapped Debian root.

    Attributes:
        layers: archives, base and toolchain.
        digests: the SHA-256 of each.
        packages: for each layer, "name version" of all packages that are there with it.
        key: the content key it is kept under.
        command: how it was made.
        inputs: the packages it was made of: file and hash.
        note: what the user should know, or "".
    """

    layers: tuple[Path, ...]
    digests: tuple[str, ...]
    packages: tuple[tuple[str, ...], ...]
    key: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    note: str = ""


def root(cache: Path, *, mirror: str | None, say: Callable[[str], None]) -> DebianRoot:
    """The root, from the cache where its packages are still the distribution's newest.

    Args:
        cache: the cache's directory.
        mirror: where packages come from, or None for the host's own sources.
        say: told what takes long.

    Raises:
        KmeshError: no mirror answers and no root is in the cache; or mmdebstrap failed.
    """
    pointer = cache / "roots" / f"debian-{SUITE}-{_recipe_key()[:16]}.json"
    try:
        where = apt.sources(SUITE, mirror=mirror)
        packages = _resolve(cache, where)
    except CommandError as error:
        return _offline(cache, pointer, error)
    key = content_key(_recipe_key(), *packages)
    place = entry(cache, "roots", key, lambda to: _bootstrap(to, where, packages, say))
    pointer.write_text(json.dumps({"key": key}))
    return _read(place, key)


def _recipe_key() -> str:
    parts = (_VERSION, SUITE, str(EPOCH), *_UNPACKED_NOT, *DROPPED, *_LLVM_KEPT, *_STANDING_IN)
    layers = (repr((layer.name, layer.keep, sorted(layer.cut))) for layer in LAYERS)
    return content_key(*parts, *layers, platform.machine())


def _wanted() -> tuple[str, ...]:
    return (*_STANDING_IN, *BASE_PACKAGES, *TOOLCHAIN_PACKAGES)


def _resolve(cache: Path, where: tuple[apt.Source, ...]) -> tuple[str, ...]:
    state = cache / "apt" / content_key(*(source.line() for source in where))[:16]
    return apt.resolve(
        where, ("?essential", *_wanted()), state=state, architecture=apt.native_architecture()
    )


def _offline(cache: Path, pointer: Path, error: CommandError) -> DebianRoot:
    if pointer.exists() and apt.unreachable(error):
        key = json.loads(pointer.read_text())["key"]
        place = cache / "roots" / key[:32]
        if place.is_dir():
            return _read(place, key, note="no Debian mirror answers: the root made last is used")
    hint = "a Debian mirror must be reachable the first time (--mirror URI for another one)"
    raise KmeshError(f"cannot tell the packages of Debian {SUITE}: {error}", hint=hint) from error


def _read(place: Path, key: str, *, note: str = "") -> DebianRoot:
    facts = json.loads((place / "root.json").read_text())
    return DebianRoot(
        layers=tuple(place / f"{layer.name}.tar" for layer in LAYERS),
        digests=tuple(facts["sha256"]),
        packages=tuple(tuple(names) for names in facts["packages"]),
        key=key,
        command=tuple(facts["command"]),
        inputs=tuple(facts["inputs"]),
        note=note,
    )


def _bootstrap(
    place: Path,
    where: tuple[apt.Source, ...],
    inputs: tuple[str, ...],
    say: Callable[[str], None],
) -> None:
    require_space(place, _SPACE)
    say(
        f"bootstrapping Debian {SUITE} from {len(inputs)} packages with mmdebstrap (under a minute)"
    )
    whole = place / "whole.tar"
    command = _command(where, whole)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(place)}
    run_logged(command, log=place / "mmdebstrap.log", env=environment)
    targets = [place / f"{layer.name}.tar" for layer in LAYERS]
    packages = split(whole, LAYERS, targets, dropped=DROPPED, epoch=EPOCH)
    whole.unlink()
    facts = {
        "packages": [
            [f"{package.name} {package.version}" for package in layer] for layer in packages
        ],
        "command": [*command[:-1], "whole.tar"],
        "inputs": inputs,
        "sha256": [file_sha256(target) for target in targets],
    }
    (place / "root.json").write_text(json.dumps(facts, indent=1))


def _command(where: tuple[apt.Source, ...], target: Path) -> list[str]:
    # Names of sources are arguments of mmdebstrap, one line of sources.list(5) each.
    return [
        "mmdebstrap",
        "--variant=essential",
        f"--include={','.join(_wanted())}",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _UNPACKED_NOT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--customize-hook={hook}" for hook in _hooks()),
        "--format=tar",
        SUITE,
        str(target),
        *(source.line() for source in where),
    ]


def _hooks() -> tuple[str, ...]:
    """What is done in the finished root: tools that are not wanted go, links and byte code are made."""
    kept = " ".join(f"! -name {name}" for name in _LLVM_KEPT)
    compile_all = "python3 -m compileall -q --invalidation-mode unchecked-hash"
    return (
        f'find "$1"/usr/lib/llvm-14/bin -mindepth 1 {kept} -delete',
        'find "$1"/usr/bin -xtype l -delete',
        # Links of busybox stand where the tools that were bootstrapped with will be missing.
        'chroot "$1" /bin/busybox --install -s /usr/local/bin',
        'cd "$1"/usr/local/bin && rm -f python* xz* unxz lzma',  # they would shadow the real ones
        # Byte code that is never checked against its source is right for a root that never changes.
        'find "$1"/usr/lib/python3* -name __pycache__ -prune -exec rm -r {} +',
        f'chroot "$1" env PYTHONHASHSEED=0 {compile_all} /usr/lib/python3.11 /usr/lib/python3',
    )
