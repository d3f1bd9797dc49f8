# SPDX-License-Identifier: Apache-2.0
"""apt, asked without touching the host's state: which mirror, and exactly which packages a root would get.

The answer, every package with its version and hash, is the content key of the root: the same list
gives the same root, and an update of any package gives a new one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import KmeshError
from runtime.process import CommandError, run

_KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg",)
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) \d+ (?P<hash>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One line of sources.list: where, which suite."""

    uri: str
    suite: str

    def line(self) -> str:
        """As sources.list(5) has it; the archive's key comes from Debian's keyring package."""
        signed = next((f"[signed-by={ring}] " for ring in _KEYRINGS if Path(ring).exists()), "")
        return f"deb {signed}{self.uri} {self.suite} main"


def sources(suite: str, *, mirror: str | None) -> tuple[Source, ...]:
    """Where packages of a Debian suite come from: the mirror given, or the host's own sources.

    Args:
        suite: a codename, such as "bookworm".
        mirror: a base URI; updates and security updates are then not asked for.

    Raises:
        KmeshError: no mirror is given and the host has no source of that suite.
    """
    if mirror:
        return (Source(mirror, suite),)
    text = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    ).stdout
    pairs = (line.split(" ") for line in text.splitlines() if line.count(" ") == 1)
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    found = sorted({Source(uri, name) for uri, name in pairs if name in wanted}, key=Source.line)
    if not any(source.suite == suite for source in found):
        hint = "say where to get them from: --mirror URI"
        raise KmeshError(f"apt on this host has no source of Debian {suite}", hint=hint)
    return tuple(found)


def resolve(
    where: Sequence[Source], packages: Sequence[str], *, state: Path, architecture: str
) -> tuple[str, ...]:
    """The packages that a root with these packages gets: one "file hash" each, sorted.

    Args:
        where: the sources.
        packages: what is wanted, beside the essential packages.
        state: a directory for apt's lists; kept, it makes the next call quick.
        architecture: Debian's name of it, such as "amd64".

    Raises:
        CommandError: no source answers, or a package is in none.
    """
    config = _configure(where, state=state, architecture=architecture)
    run(["apt-get", "-c", str(config), "-q", "--error-on=any", "update"], timeout=120)
    asked = ["install", "--print-uris", "-qq", "--no-install-recommends", "-y", *packages]
    printed = run(["apt-get", "-c", str(config), *asked], timeout=60).stdout
    return tuple(f"{file} {digest}" for file, digest in parse_uris(printed))


def parse_uris(text: str) -> list[tuple[str, str]]:
    """File names and hashes in what `apt-get --print-uris` prints, sorted."""
    return sorted((found["file"], found["hash"]) for found in _URI.finditer(text))


def _configure(where: Sequence[Source], *, state: Path, architecture: str) -> Path:
    for name in ("lists/partial", "cache/archives/partial", "empty.d"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text("".join(source.line() + "\n" for source in where))
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "10",
        "Dir::Cache": str(state / "cache"),
        "Dir::Etc::SourceList": str(state / "sources.list"),
        "Dir::Etc::SourceParts": str(state / "empty.d"),
        "Dir::State": str(state),
        "Dir::State::Lists": str(state / "lists"),
        "Dir::State::Status": str(state / "status"),
    }
    config = state / "apt.conf"
    config.write_text("".join(f'{key} "{text}";\n' for key, text in settings.items()))
    return config


def native_architecture() -> str:
    """Debian's name of this host's architecture."""
    return run(["dpkg", "--print-architecture"]).stdout.strip()


def unreachable(error: CommandError) -> bool:
    """Whether apt failed for want of a network, not for what was asked."""
    signs = (
        "Could not resolve",
        "Could not connect",
        "Connection",
        "timed out",
        "Unable to connect",
    )
    return any(sign in error.output for sign in signs)
