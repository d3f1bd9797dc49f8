# SPDX-License-Identifier: Apache-2.0
"""What a package of objects is called and says of itself, whatever its format."""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.checkout import SOURCE


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFacts:
    """A package's fields; the name has the kernel in it, so that those of several can be installed."""

    name: str
    version: str
    machine: str
    summary: str
    description: str
    vendor: str = "Kmesh <kmesh@kmesh.net>"
    url: str = SOURCE

    @classmethod
    def of(cls, *, release: str, machine: str, version: str) -> PackageFacts:
        """The package of objects for a kernel."""
        name = re.sub(r"[^a-z0-9+.-]", "-", f"kmesh-objects-{release}".lower())
        return cls(
            name=name,
            version=version,
            machine=machine,
            summary=f"Kmesh's BPF objects for kernel {release}",
            description="What `kmesh run` loads; in the place where it looks for them.",
        )
