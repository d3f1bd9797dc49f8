# SPDX-License-Identifier: Apache-2.0
"""Debian's kernels, fetched as packages into a cache, with an apt state of their own.

The mirror is the one that this machine's apt uses; nothing is installed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from packaging.version import Version

from builder.cache import cache_dir
from runtime.errors import KmeshError
from runtime.process import run

LIST = Path(__file__).with_name("kernels.list")
_FRESH_SECONDS = 12 * 3600
_MODULES = ("veth",)
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One line of kernels.list."""

    suite: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel unpacked from its packages; of its modules those that tests need."""

    release: str
    image: Path
    config: Path
    modules: tuple[Path, ...] = ()


def wanted(path: Path = LIST) -> list[Wanted]:
    """The kernels that the list names, in its order."""
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    return [Wanted(line[0], tuple(line[1:])) for line in lines if line]


def mirror() -> str:
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    for uri in targets.stdout.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    raise KmeshError(
        "this machine's apt knows no Debian mirror", hint="add one to its sources, or run on Debian"
    )


class Archive:
    """One suite, with an apt state of its own below a directory, for one process at a time.

    Args:
        directory: where lists and packages are kept.
        suite: the suite to know of.
    """

    def __init__(self, directory: Path, suite: str) -> None:
        self._directory = directory / suite
        for part in ("lists/partial", "cache/archives/partial"):
            (self._directory / part).mkdir(parents=True, exist_ok=True)
        (self._directory / "sources.list").write_text(self._source(mirror(), suite))
        (self._directory / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{self._directory}/sources.list";\n'
            'Dir::Etc::sourceparts "/dev/null";\n'
            f'Dir::State::lists "{self._directory}/lists";\n'
            f'Dir::Cache "{self._directory}/cache";\n'
            'APT::Sandbox::User "root";\n'
        )
        self._refresh()

    def _refresh(self) -> None:
        stamp = self._directory / "refreshed"
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > _FRESH_SECONDS:
            self._run("apt-get", "update", "-q")
            stamp.touch()

    @staticmethod
    def _source(mirror: str, suite: str) -> str:
        place = f"{mirror}-security" if suite.endswith("-security") else mirror
        return f"deb [signed-by={_KEYRING}] {place} {suite} main\n"

    def _run(self, *argv: str, cwd: Path | None = None) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._directory / "apt.conf")}
        return run(argv, env=environment, cwd=cwd, timeout=600).stdout

    def newest(self, pattern: str) -> str:
        """The package whose name fits the pattern and sorts last by version.

        Raises:
            KmeshError: the archive has none.
        """
        names = [
            name for name in self._run("apt-cache", "pkgnames").split() if fnmatch(name, pattern)
        ]
        if not names:
            raise KmeshError(f"no package fits {pattern}", hint="correct ci/kernels/kernels.list")
        return max(names, key=lambda name: Version(".".join(re.findall(r"\d+", name))))

    def unpack(self, package: str) -> Path:
        """Download a package and unpack it; what is there already is not fetched again."""
        target = self._directory / "unpacked" / package
        if not target.exists():
            self._run("apt-get", "download", "-q", package, cwd=self._directory)
            [archive] = self._directory.glob(f"{package}_*.deb")
            partial = target.with_name(f"{package}.partial")
            partial.mkdir(parents=True, exist_ok=True)
            run(["dpkg-deb", "-x", str(archive), str(partial)])
            archive.unlink()
            partial.rename(target)
        return target


def _one(roots: list[Path], names: tuple[str, ...]) -> Path:
    for root in roots:
        for name in names:
            for found in sorted(root.rglob(name)):
                if found.is_file():
                    return found
    raise KmeshError(f"no {shlex.join(names)} in {roots[0].name}")


def fetch(kernels: list[Wanted], *, directory: Path | None = None) -> list[Kernel]:
    """Fetch kernels.

    Args:
        kernels: what to fetch.
        directory: where to keep them; by default below the cache.

    Raises:
        KmeshError: a package is not there, or the mirror cannot be reached.
    """
    place = directory or cache_dir() / "kernels"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return [_fetch_one(place, kernel) for kernel in kernels]


def _fetch_one(place: Path, kernel: Wanted) -> Kernel:
    archive = Archive(place, kernel.suite)
    packages = [archive.newest(pattern) for pattern in kernel.packages]
    roots = [archive.unpack(package) for package in packages]
    return Kernel(
        release=re.sub(r"^linux-[a-z]+-", "", packages[0]),
        image=_one(roots, ("vmlinuz*",)),
        config=_one(roots, ("config-*", "config")),
        modules=tuple(_one(roots, (f"{name}.ko", f"{name}.ko.xz")) for name in _MODULES),
    )
