# SPDX-License-Identifier: Apache-2.0
"""What is in an image, asked of the image itself: the package database that it carries."""

from __future__ import annotations

from builder.engine import Engine, RunOptions
from builder.rootfs.dpkg import parse_status
from builder.rootfs.osrelease import PATHS, OsRelease, parse
from builder.rootfs.rpm import MANIFEST, parse_manifest
from builder.rootfs.split import STATUS
from builder.sbom import RPM_FORMAT, SystemPackage, parse_rpm
from runtime.errors import KmeshError


def os_release(engine: Engine, image: str) -> OsRelease:
    """What the image says that it is."""
    found = (engine.read_file(image, f"/{path}") for path in PATHS)
    return parse(next((data.decode() for data in found if data), ""))


def system_packages(engine: Engine, image: str) -> list[SystemPackage]:
    """The distribution's packages, from dpkg's database, a list in its place, or rpm's, sorted.

    Raises:
        KmeshError: the image has none of these, or an empty one.
    """
    release = os_release(engine, image)
    if (status := engine.read_file(image, f"/{STATUS}")) is not None:
        found = parse_status(status.decode()).values()
        return sorted(
            (SystemPackage(p.name, p.version, p.architecture, "deb", release.id) for p in found),
            key=lambda package: package.name,
        )
    if (listed := engine.read_file(image, f"/{MANIFEST}")) is not None:
        return sorted(
            (
                SystemPackage(*fields, "rpm", release.id.lower())
                for fields in parse_manifest(listed.decode())
            ),
            key=lambda package: package.name,
        )
    options = RunOptions(entrypoint="/usr/bin/rpm")
    command = ["-qa", "--queryformat", RPM_FORMAT]
    result = engine.run(image, command, options=options, what="rpm -qa")
    if result.status != 0 or not result.stdout.strip():
        raise KmeshError(f"the base {release.name} has no database of packages that can be read")
    return sorted(parse_rpm(result.stdout, release.id), key=lambda package: package.name)
