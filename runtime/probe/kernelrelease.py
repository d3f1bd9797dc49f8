# SPDX-License-Identifier: Apache-2.0
"""Which upstream version a kernel is, whatever its vendor writes into `uname`.

`uname -r` of Debian names an ABI (6.1.0-18), the version is in `uname -v`; Ubuntu keeps it in
/proc/version_signature; RHEL and openEuler stay at their base version and backport. The head of a
build configuration names the version too ("# Linux/x86 6.1.192 Kernel Configuration").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

_DEBIAN = re.compile(r"\bDebian (\d+\.\d+(?:\.\d+)?)")
_UBUNTU = re.compile(r"^Ubuntu \S+ (\d+\.\d+\.\d+)")
_NUMBERS = re.compile(r"^(\d+\.\d+(?:\.\d+)?)")
# A vendor that keeps its base version and backports fixes, by what its releases contain.
_BACKPORTERS = (
    (re.compile(r"\.oe\d|openeuler", re.IGNORECASE), "openEuler"),
    (re.compile(r"\.el\d|\.rhel", re.IGNORECASE), "RHEL"),
    (re.compile(r"\.amzn\d"), "Amazon Linux"),
    (re.compile(r"\.(?:an|al)\d+\b"), "Anolis/Alibaba"),
    (re.compile(r"-default$|\.sle"), "SUSE"),
    (re.compile(r"uek"), "Oracle UEK"),
    (re.compile(r"-(?:generic|azure|gcp|aws|gke|oracle|lowlatency)\b"), "Ubuntu"),
)


@dataclass(frozen=True, slots=True)
class KernelRelease:
    """A kernel's upstream version; `backports` says that fixes may be in without showing in it."""

    version: Version | None
    vendor: str = ""
    backports: bool = False


def parse_release(
    release: str, *, version: str = "", signature: str = "", built: str = ""
) -> KernelRelease:
    """Find the upstream version.

    Args:
        release: `uname -r`.
        version: `uname -v`, "" when not known.
        signature: /proc/version_signature (Ubuntu), "" when there is none.
        built: the version in the head of the build configuration, "" when not known.
    """
    if found := _DEBIAN.search(version):
        return KernelRelease(_version(found.group(1)), "Debian")
    if found := _UBUNTU.match(signature):
        return KernelRelease(_version(found.group(1)), "Ubuntu")
    numbers = _NUMBERS.match(release)
    base = _version(numbers.group(1)) if numbers else None
    exact = _version(built)
    if exact and base and exact.release[:2] == base.release[:2] and exact > base:
        return KernelRelease(exact)  # the release names an ABI
    for pattern, vendor in _BACKPORTERS:
        if pattern.search(release):
            return KernelRelease(base, vendor, backports=True)
    # Debian's ABI name (6.1.0-18-amd64) without `uname -v`: the third number is no version.
    if re.match(r"^\d+\.\d+\.0-\d", release):
        return KernelRelease(base, backports=True)
    return KernelRelease(base)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
