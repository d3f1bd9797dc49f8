# SPDX-License-Identifier: Apache-2.0
"""How to reach Istiod: TLS against the mesh's root and a bearer token, or plaintext.

Kubernetes rotates both files by swapping a symbolic link. They are read again for every stream;
`changed` tells a running stream that the root it was opened with is no longer the one to trust.
A token is only presented when a stream begins, and never without TLS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from runtime.errors import KmeshError

ROOT_CERT = Path("/var/run/secrets/istio/root-cert.pem")
TOKEN = Path("/var/run/secrets/tokens/istio-token")
Metadata = tuple[tuple[str, str], ...]


class CredentialsError(KmeshError):
    """A file that is needed to reach Istiod cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A fresh channel and what goes with each call on it."""

    channel: grpc.aio.Channel
    metadata: Metadata
    root: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a stream is opened with.

    Attributes:
        root: PEM file of the certificates to trust; None for plaintext.
        token: file of the bearer token; None to present none.
        authority: the name that Istiod's certificate must carry, where it is not the target's.
    """

    root: Path | None = ROOT_CERT
    token: Path | None = TOKEN
    authority: str | None = None

    def connect(self, target: str, *, options: Sequence[tuple[str, str | int]]) -> Connection:
        """Read the files and make a channel; nothing is sent yet.

        Raises:
            CredentialsError: a file cannot be read.
        """
        if self.root is None:
            channel = grpc.aio.insecure_channel(target, options=list(options))
            return Connection(channel=channel, metadata=(), root=None)
        root = _read(self.root, what="mesh root certificate")
        secure = grpc.ssl_channel_credentials(root_certificates=root)
        named = [("grpc.ssl_target_name_override", self.authority)] if self.authority else []
        channel = grpc.aio.secure_channel(target, secure, options=[*options, *named])
        return Connection(channel=channel, metadata=self._bearer(), root=root)

    def _bearer(self) -> Metadata:
        if self.token is None:
            return ()
        token = _read(self.token, what="service account token").decode("ascii", "replace").strip()
        return (("authorization", f"Bearer {token}"),)

    def changed(self, since: Connection) -> bool:
        """Whether the root is another one than the connection was made with, and can be read."""
        if self.root is None:
            return False
        try:
            return self.root.read_bytes() not in (since.root, b"")
        except OSError:
            return False


def _read(path: Path, *, what: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "is the volume of the Istio certificates mounted?"
        raise CredentialsError(f"{what} {path}: {error.strerror}", hint=hint) from error
    if not content.strip():
        raise CredentialsError(f"{what} {path} is empty")
    return content
