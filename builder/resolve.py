# SPDX-License-Identifier: Apache-2.0
"""Which packages a pulled base gets: asked of the base's own installer, before anything is built.

The answer, each package with version and hash, is part of the image's key, and what the Dockerfile
installs: an update of any package makes another image, and none is installed that was not asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from builder.engine import Engine, RunOptions
from builder.rootfs.apt import parse_uris
from runtime.errors import KmeshError

# What apt and dnf need as root of a root file system of their own.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
_APT = """\
apt-get -q --error-on=any update >&2 &&
apt-get install -qq -y --no-install-recommends -o Acquire::ForceHash=SHA256 --print-uris "$@"
"""
# dnf's own interface: its output is for people, and wraps.
DNF = """\
import sys, dnf
base = dnf.Base()
base.conf.read()
base.conf.install_weak_deps = False
base.conf.substitutions.update_from_etc("/", varsdir=base.conf.varsdir)
base.conf.substitutions["releasever"] = base.conf.substitutions.get("releasever") or ""
base.read_all_repos()
base.fill_sack()
for name in sys.argv[1:]:
    base.install(name)
base.resolve()
for package in sorted(base.transaction.install_set):
    print(package, package.chksum[1].hex())
"""


@dataclass(frozen=True)
class Resolved:
    """A package that will be installed.

    Attributes:
        name: its name.
        spec: what names it with its version to the installer.
        input: what it is and its hash, for the provenance.
    """

    name: str
    spec: str
    input: str


def resolve(
    engine: Engine, image: str, installer: str, packages: Sequence[str], *, network: str | None
) -> tuple[Resolved, ...]:
    """The packages that a base lacks of those wanted, and of those that they need; sorted.

    Args:
        engine: where the base is.
        image: its id.
        installer: "apt-get" or "dnf".
        packages: what is wanted.
        network: the network of its containers, None for the engine's default.

    Raises:
        KmeshError: the base's repositories do not answer, or lack a package.
    """
    options = RunOptions(
        capabilities=_CAPABILITIES,
        network=network or "default",
        read_only=False,
        entrypoint="/bin/sh" if installer == "apt-get" else "/usr/bin/python3",
    )
    command = ["-c", _APT, installer] if installer == "apt-get" else ["-I", "-c", DNF]
    result = engine.run(image, [*command, *packages], options=options, what=f"{installer} in it")
    if result.status != 0:
        said = " ".join(result.stderr.split("\n")[-4:]).strip()
        hint = "a pulled base gets its packages from its own repositories: are they reachable?"
        raise KmeshError(f"cannot tell what {installer} would install: {said}", hint=hint)
    return (_apt if installer == "apt-get" else parse_dnf)(result.stdout)


def specs(wanted: Sequence[str], resolved: Sequence[Resolved]) -> tuple[str, ...]:
    """What to tell the installer: everything that is missing in one version, and what is there by its name."""
    missing = {package.name for package in resolved}
    there = [name for name in wanted if name not in missing]
    return tuple(sorted([*there, *(package.spec for package in resolved)]))


def _apt(text: str) -> tuple[Resolved, ...]:
    found = []
    for file, digest in parse_uris(text):
        name, version, _ = file.removesuffix(".deb").split("_")
        found.append(Resolved(name, f"{name}={unquote(version)}", f"{file} {digest}"))
    return tuple(found)


def parse_dnf(text: str) -> tuple[Resolved, ...]:
    """Packages from what DNF prints: "python3-3.11.6-9.oe2403.x86_64 0123…"."""
    found = []
    for line in text.splitlines():
        spec, digest = line.split(" ")
        found.append(Resolved(spec.rsplit("-", 2)[0], spec, f"{spec}.rpm sha256:{digest}"))
    return tuple(found)
