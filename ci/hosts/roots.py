# SPDX-License-Identifier: Apache-2.0
"""Roots of other distributions, each with the headers of one of its kernels; made once, kept by their content."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.cache import content_key, entry
from builder.kernels import DATA
from builder.longrun import run_logged
from builder.rootfs import apt
from ci.hosts import rpm
from ci.kernels.debian import Wanted, mirror, wanted
from ci.kernels.headers import header_root, newest_headers
from runtime.errors import KmeshError

_VERSION = "1"  # of what this module does to a root: part of the key
# A mirror that lags is good enough for files that are looked at; signatures are checked all the same.
_STANDING_STILL = '--aptopt=Acquire::Check-Valid-Until "false"'
_OS = {"bullseye": "debian11", "bookworm": "debian12", "trixie": "debian13", "sid": "debian"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A distribution to try the compile image on.

    Attributes:
        name: its suite, or "rpm".
        os: what the image made for it is to be named for.
        kernel: the line of kernels.list, for Debian.
    """

    name: str
    os: str
    kernel: Wanted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root, and the kernel whose headers are in it."""

    host: Host
    path: Path
    release: str
    btf: Path | None


def hosts() -> list[Host]:
    """Every Debian suite of which a kernel is known, and the one of rpm packages."""
    kernels = [(each.suite.removesuffix("-security"), each) for each in wanted()]
    debian = [Host(name=name, os=_OS[name], kernel=each) for name, each in kernels]
    return [*debian, Host(name="rpm", os=rpm.OS)]


def chosen(names: Sequence[str]) -> list[Host]:
    """The hosts of these names; all without names.

    Raises:
        KmeshError: one has no such name.
    """
    known = {host.name: host for host in hosts()}
    for name in names:
        if name not in known:
            raise KmeshError(f"no host is called {name}", hint=f"there are: {', '.join(known)}")
    return [known[name] for name in names or known]


def root_of(host: Host, cache: Path, *, say: Callable[[str], None]) -> Root:
    """The root of a host, made first where it is not in the cache.

    Raises:
        KmeshError: a mirror cannot be reached, or a tool is missing.
    """
    return _rpm_root(host, cache) if host.kernel is None else _debian_root(host, cache, say)


def _rpm_root(host: Host, cache: Path) -> Root:
    def make(place: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="kmesh-rpm-") as scratch:
            rpm.install(place, scratch=Path(scratch))

    key = content_key(_VERSION, *rpm.inputs())
    [btf] = DATA.glob("6.1.0-*.btf")  # the kernel that the header is of
    return Root(host=host, path=entry(cache, "hosts", key, make), release=rpm.RELEASE, btf=btf)


def _debian_root(host: Host, cache: Path, say: Callable[[str], None]) -> Root:
    kernel = host.kernel
    assert kernel is not None
    where = (apt.Source(mirror(), host.name),)
    state = cache / "apt" / content_key(where[0].line())[:16]
    packages = apt.resolve(
        where, ("?essential",), state=state, architecture=apt.native_architecture()
    )
    flavour = newest_headers(kernel)
    release = flavour.removeprefix("linux-headers-")

    def make(place: Path) -> None:
        say(f"bootstrapping a root of Debian {host.name} with the headers of {release}")
        command = ["mmdebstrap", "--variant=essential", "--format=directory", _STANDING_STILL]
        run_logged(
            [*command, host.name, str(place / "root"), where[0].line()],
            log=place / "mmdebstrap.log",
        )
        header_root(kernel, place / "root")

    root = entry(cache, "hosts", content_key(_VERSION, flavour, *packages), make) / "root"
    btf = DATA / f"{release}.btf"
    return Root(host=host, path=root, release=release, btf=btf if btf.is_file() else None)
