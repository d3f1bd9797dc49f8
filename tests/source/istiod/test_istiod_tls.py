# SPDX-License-Identifier: Apache-2.0
"""TLS against the mesh's root and the bearer token, both read again when they rotate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from runtime.process import run
from runtime.source.istiod.credentials import Credentials, CredentialsError
from runtime.source.istiod.wire import ADDRESS_TYPE
from tests.source.istiod.mesh_messages import uid, workload

NAME = "istiod.istio-system.svc"


class Authority:
    """A certificate authority of its own, with one server certificate for Istiod's name."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir()
        self.root, self.key, self.cert = (
            directory / n for n in ("root.pem", "key.pem", "cert.pem")
        )
        root_key, request, extensions = (
            directory / n for n in ("root.key", "request", "extensions")
        )
        extensions.write_text(f"subjectAltName=DNS:{NAME}\n")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self_sign = ["openssl", "req", *curve, "-x509", "-days", "1", "-subj", f"/CN={name}"]
        run([*self_sign, "-keyout", str(root_key), "-out", str(self.root)])
        ask = ["openssl", "req", *curve, "-subj", "/CN=istiod", "-keyout", str(self.key)]
        run([*ask, "-out", str(request)])
        authority = ["-CA", str(self.root), "-CAkey", str(root_key), "-CAcreateserial"]
        sign = ["openssl", "x509", "-req", "-in", str(request), "-days", "1", *authority]
        run([*sign, "-extfile", str(extensions), "-out", str(self.cert)])

    def server(self) -> grpc.ServerCredentials:
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_credentials([pair])


@pytest.fixture(scope="module")
def authorities(tmp_path_factory) -> tuple[Authority, Authority]:
    directory = tmp_path_factory.mktemp("authorities")
    return Authority(directory / "old", "old"), Authority(directory / "new", "new")


class Mounted:
    """A volume as Kubernetes mounts it: names that lead through a link, which is swapped whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self.files: dict[str, bytes] = {}

    def write(self, **files: bytes) -> None:
        self.files |= files
        self._count += 1
        fresh = self._directory / f"..{self._count}"
        fresh.mkdir(parents=True)
        for name, content in self.files.items():
            (fresh / name).write_bytes(content)
            if not (self._directory / name).is_symlink():
                (self._directory / name).symlink_to(Path("..data") / name)
        link = self._directory / "..data_tmp"
        link.symlink_to(fresh.name)
        link.rename(self._directory / "..data")

    def path(self, name: str) -> Path:
        return self._directory / name


@pytest.fixture
async def secure(server, authorities, tmp_path) -> Mounted:
    """The server over TLS with the old authority, and the files of a client that trusts it."""
    await server.stop()
    await server.start(credentials=authorities[0].server())
    mounted = Mounted(tmp_path / "secrets")
    mounted.write(root=authorities[0].root.read_bytes(), token=b"token-1\n")
    return mounted


def credentials(mounted: Mounted) -> Credentials:
    return Credentials(root=mounted.path("root"), token=mounted.path("token"), authority=NAME)


@pytest.fixture
def follow_securely(server, follow, secure) -> Callable[..., Any]:
    def start(**changes):
        return follow(
            address=f"127.0.0.1:{server.port}", credentials=credentials(secure), **changes
        )

    return start


async def test_the_token_goes_with_the_stream(server, follow_securely):
    follower = follow_securely()
    await follower.synced()
    assert server.streams[0].metadata["authorization"] == "Bearer token-1"
    assert server.streams[0].metadata["clusterid"] == "c1"


async def test_a_rotated_token_is_read_for_the_next_stream(server, follow_securely, secure):
    follower = follow_securely()
    await follower.synced()
    server.authorize = lambda metadata: metadata.get("authorization") == "Bearer token-2"
    await server.drop()
    await server.until(lambda: len(server.streams) >= 3)
    assert {each.metadata["authorization"] for each in server.streams} == {"Bearer token-1"}
    await follower.until(lambda: "UNAUTHENTICATED" in (follower.source.status.last_error or ""))
    assert len(follower.services) == 2
    secure.write(token=b"token-2")
    await follower.until(lambda: follower.source.status.connected)
    assert server.streams[-1].metadata["authorization"] == "Bearer token-2"
    assert len(follower.updates) == 1


async def test_a_rotated_root_is_trusted_without_waiting_for_the_stream_to_end(
    server, follow_securely, secure, authorities
):
    follower = follow_securely(rotation_check=0.01)
    await follower.synced()
    secure.write(root=authorities[0].root.read_bytes() + authorities[1].root.read_bytes())
    await server.until(lambda: len(server.streams) == 2)
    await server.stop()
    await server.start(credentials=authorities[1].server())
    server.put(ADDRESS_TYPE, uid("new"), workload("new", "10.244.9.9"), version="1")
    await follower.until(lambda: uid("new") in follower.workloads)


async def test_a_server_of_another_root_is_not_believed_until_that_root_is_there(
    server, follow_securely, secure, authorities
):
    follower = follow_securely()
    await follower.synced()
    await server.stop()
    await server.start(credentials=authorities[1].server())
    streams = len(server.streams)
    await follower.until(lambda: follower.source.status.failures >= 3)
    assert len(server.streams) == streams
    assert not follower.source.status.connected
    assert len(follower.services) == 2
    secure.write(root=authorities[1].root.read_bytes())
    await follower.until(lambda: follower.source.status.connected)


async def test_a_server_of_another_name_is_not_believed(server, follow, secure):
    wrong = Credentials(
        root=secure.path("root"), token=secure.path("token"), authority="other.example.com"
    )
    follower = follow(address=f"127.0.0.1:{server.port}", credentials=wrong)
    await follower.until(lambda: follower.source.status.failures >= 2)
    assert not server.streams


async def test_files_that_are_not_there_yet_are_waited_for(server, follow_securely, secure):
    secure.path("token").rename(secure.path("away"))
    follower = follow_securely()
    await follower.until(lambda: follower.source.status.failures >= 2)
    assert "token: No such file" in str(follower.source.status.last_error)
    assert not server.streams
    secure.path("away").rename(secure.path("token"))
    await follower.synced()


def test_an_unreadable_or_empty_file_is_named(tmp_path):
    missing = Credentials(root=tmp_path / "root", token=None)
    with pytest.raises(CredentialsError, match=r"mesh root certificate .*/root: No such file") as e:
        missing.connect("127.0.0.1:1", options=[])
    assert e.value.hint
    (tmp_path / "root").write_text("\n")
    with pytest.raises(CredentialsError, match="is empty"):
        missing.connect("127.0.0.1:1", options=[])


async def test_a_root_that_is_gone_or_empty_does_not_end_a_stream(authorities, tmp_path):
    root = tmp_path / "root"
    root.write_bytes(authorities[0].root.read_bytes())
    made = Credentials(root=root, token=None)
    connection = made.connect("127.0.0.1:1", options=[])
    assert not made.changed(connection)
    root.write_bytes(b"")
    assert not made.changed(connection)
    root.unlink()
    assert not made.changed(connection)
    root.write_bytes(authorities[1].root.read_bytes())
    assert made.changed(connection)
    await connection.channel.close(None)


async def test_plaintext_presents_no_token(tmp_path):
    (tmp_path / "token").write_text("secret")
    made = Credentials(root=None, token=tmp_path / "token").connect("127.0.0.1:1", options=[])
    assert made.metadata == ()
    await made.channel.close(None)
