# SPDX-License-Identifier: Apache-2.0
"""dpkg's database, read from a root: which packages there are, what they need, which files they own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_FIELD = re.compile(r"^([A-Za-z-]+): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """One installed package.

    Attributes:
        depends: its dependencies; each a tuple of alternatives, names only.
        provides: the virtual packages that it is.
        stanza: its text in the status file.
    """

    name: str
    version: str
    architecture: str
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]
    stanza: str


def parse_status(text: str) -> dict[str, Package]:
    """Parse /var/lib/dpkg/status (deb-control(5)): name → package, installed ones only."""
    packages = (_parse_stanza(stanza) for stanza in text.split("\n\n") if stanza.strip())
    return {package.name: package for package in packages if package}


def _parse_stanza(stanza: str) -> Package | None:
    fields: dict[str, str] = dict(_FIELD.findall(stanza))
    if "Package" not in fields or not fields.get("Status", "").endswith(" installed"):
        return None
    needs = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
    return Package(
        name=fields["Package"],
        version=fields.get("Version", ""),
        architecture=fields.get("Architecture", ""),
        depends=tuple(tuple(_names(group, "|")) for group in needs.split(",") if group.strip()),
        provides=tuple(_names(fields.get("Provides", ""), ",")),
        stanza=stanza.strip("\n"),
    )


def _names(text: str, separator: str) -> Iterable[str]:
    # "python3:any (>= 3.11)" → "python3"
    return (re.split(r"[\s:(]", item.strip())[0] for item in text.split(separator) if item.strip())


def closure(packages: Mapping[str, Package], keep: Iterable[str], cut: Iterable[str]) -> set[str]:
    """What `keep` needs, itself included, without `cut` and what only that needs.

    Raises:
        KeyError: a package to keep is not installed.
    """
    providers = {name: package for package in packages.values() for name in package.provides}
    refused, found = frozenset(cut), set[str]()
    todo = [packages[name] for name in keep]
    while todo:
        package = todo.pop()
        if package.name in found or package.name in refused:
            continue
        found.add(package.name)
        for group in package.depends:
            there = (packages.get(name) or providers.get(name) for name in group)
            todo.extend([alternative for alternative in there if alternative][:1])
    return found


def status_of(packages: Mapping[str, Package], names: Iterable[str]) -> str:
    """The status file of a root in which only these packages are left."""
    return "".join(packages[name].stanza + "\n\n" for name in sorted(names))


def owner_lists(info: Mapping[str, str]) -> dict[str, set[str]]:
    """Which packages own a path.

    Args:
        info: file name in /var/lib/dpkg/info → its text; `libc6:amd64.list` is one of them.

    Returns:
        path as in the list file, without the leading slash → names of packages.
    """
    owners: dict[str, set[str]] = {}
    for file, text in info.items():
        if file.endswith(".list"):
            package = file.removesuffix(".list").split(":")[0]
            for line in text.splitlines():
                owners.setdefault(line.strip("/"), set()).add(package)
    return owners
