# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of an image, as SPDX 2.3 JSON: system packages, Python packages, BPF objects.

Everything in it follows from the image's content and the commit, so that it is the same for the same
image, its namespace included.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from builder.checkout import SOURCE, Checkout
from builder.objects import ObjectFile
from builder.wheels import PythonPackage
from runtime.errors import KmeshError

_ROOT = "SPDXRef-image"
_OBJECTS = "SPDXRef-objects"


@dataclass(frozen=True)
class SystemPackage:
    """A package of the distribution.

    Attributes:
        kind: its purl type: "deb" or "rpm".
        namespace: the distribution's id.
    """

    name: str
    version: str
    architecture: str
    kind: str
    namespace: str

    @property
    def purl(self) -> str:
        """The package URL (purl-spec)."""
        name, version = (quote(text, safe=":~") for text in (self.name, self.version))
        return f"pkg:{self.kind}/{self.namespace}/{name}@{version}?arch={self.architecture}"


@dataclass(frozen=True)
class Contents:
    """What is in an image."""

    system: Sequence[SystemPackage]
    python: Sequence[PythonPackage]
    objects: Sequence[ObjectFile]


def write_sbom(
    target: Path, *, name: str, image_id: str, checkout: Checkout, contents: Contents
) -> int:
    """Write and validate the bill of materials of an image; returns how many packages it names.

    Args:
        target: the file, which must end in .spdx.json.
        name: the image's name.
        image_id: its id, "sha256:…".
        checkout: what it was built from.
        contents: what is in it.

    Raises:
        KmeshError: the document is not valid SPDX.
    """
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
    from spdx_tools.spdx.writer.json.json_writer import write_document_to_file

    document = make_document(name, image_id, checkout, contents)
    if messages := validate_full_spdx_document(document, "SPDX-2.3"):
        raise KmeshError(f"the bill of materials of {name}: {messages[0].validation_message}")
    write_document_to_file(document, str(target), validate=False)
    return len(document.packages)


def make_document(name: str, image_id: str, checkout: Checkout, contents: Contents) -> Any:
    """The document, as spdx-tools has it."""
    from spdx_tools.spdx.model.actor import Actor, ActorType
    from spdx_tools.spdx.model.document import CreationInfo, Document
    from spdx_tools.spdx.model.relationship import Relationship, RelationshipType

    packages = [
        _package(_ROOT, name, image_id, purl=None),
        *(_system(package) for package in contents.system),
        *(_python(package) for package in contents.python),
    ]
    files = [_file(item) for item in contents.objects]
    objects = _object_package(checkout, contents.objects)
    info = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=name,
        data_license="CC0-1.0",
        document_namespace=f"{SOURCE}/sbom/{name}/{image_id.removeprefix('sha256:')}",
        creators=[Actor(ActorType.TOOL, f"kmesh-build-{checkout.version}")],
        created=datetime.fromtimestamp(checkout.epoch, UTC).replace(tzinfo=None),
    )
    packages += [objects] if files else []
    relations = [Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, _ROOT)]
    pairs = [(_ROOT, package.spdx_id) for package in packages[1:]]
    pairs += [(_OBJECTS, item.spdx_id) for item in files]
    relations += [Relationship(whole, RelationshipType.CONTAINS, part) for whole, part in pairs]
    return Document(info, packages=packages, files=files, relationships=relations)


def _identifier(*parts: str) -> str:
    return "SPDXRef-" + "-".join(re.sub(r"[^A-Za-z0-9.-]", "-", part) for part in parts)


def _package(spdx_id: str, name: str, version: str, *, purl: str | None, licence: str = "") -> Any:
    from spdx_tools.spdx.model.package import (
        ExternalPackageRef,
        ExternalPackageRefCategory,
        Package,
    )
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    references = (
        [ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)]
        if purl
        else []
    )
    return Package(
        spdx_id=spdx_id,
        name=name,
        version=version,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        license_declared=_licence(licence),
        license_concluded=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        external_references=references,
    )


def _object_package(checkout: Checkout, objects: Sequence[ObjectFile]) -> Any:
    """The objects as a package of files; its code is that of SPDX 2.3, clause 7.9."""
    from spdx_tools.spdx.model.package import PackageVerificationCode

    made = _package(
        _OBJECTS, "kmesh-bpf-objects", checkout.version, purl=None, licence="GPL-2.0-only"
    )
    digests = "".join(sorted(_digest(item.path, "sha1") for item in objects))
    made.files_analyzed = True
    made.verification_code = PackageVerificationCode(hashlib.sha1(digests.encode()).hexdigest())  # noqa: S324
    return made


def _licence(text: str) -> Any:
    """A licence expression where it is one; packages write all sorts of things there."""
    from license_expression import ExpressionError
    from spdx_tools.common.spdx_licensing import spdx_licensing
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    try:
        found = spdx_licensing.parse(text, validate=True)
    except ExpressionError:
        found = None
    return SpdxNoAssertion() if found is None else found


def _system(package: SystemPackage) -> Any:
    spdx_id = _identifier(package.kind, package.name, package.architecture, package.version)
    return _package(spdx_id, package.name, package.version, purl=package.purl)


def _python(package: PythonPackage) -> Any:
    purl = f"pkg:pypi/{package.name.lower().replace('_', '-')}@{package.version}"
    spdx_id = _identifier("python", package.name, package.version)
    return _package(spdx_id, package.name, package.version, purl=purl, licence=package.license)


def _file(item: ObjectFile) -> Any:
    from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
    from spdx_tools.spdx.model.file import File, FileType
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    sha1 = _digest(item.path, "sha1")  # SPDX 2.3 wants it of every file
    return File(
        name=f"./usr/lib/kmesh/bpf/{item.name}",
        spdx_id=_identifier("object", item.name),
        checksums=[
            Checksum(ChecksumAlgorithm.SHA1, sha1),
            Checksum(ChecksumAlgorithm.SHA256, item.info.sha256),
        ],
        file_types=[FileType.BINARY],
        license_concluded=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
    )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def parse_rpm(text: str, namespace: str) -> Iterable[SystemPackage]:
    """Packages from `rpm -qa --queryformat RPM_FORMAT`."""
    for line in text.splitlines():
        name, version, architecture = line.split("\t")
        yield SystemPackage(name, version, architecture, "rpm", namespace.lower())


RPM_FORMAT = "%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
