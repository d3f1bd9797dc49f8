# SPDX-License-Identifier: Apache-2.0
"""The container engine: the one module that imports docker.

It uses the classic builder: docker-py cannot drive BuildKit (docker-py #2230). Each failure becomes
one line: an engine that is gone, a full disk and a failed step are told apart.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from runtime.errors import KmeshError

_SECONDS = 600
_PING_SECONDS = 5
_AGAIN = "nothing was tagged; run it again to continue"
# What docker-py lets through where an engine ends in the middle of an answer: requests' errors before and
# in a plain answer, urllib3's in a chunked one that docker-py reads by itself, its own in half a JSON value,
# tarfile's in half an archive.
_HUNG_UP = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    docker.errors.StreamParseError,
    tarfile.ReadError,
    ConnectionError,
)


class EngineError(KmeshError):
    """The engine could not do what it was asked to."""


@dataclass(frozen=True)
class ImageFacts:
    """An image that the engine has.

    Attributes:
        id: its id, "sha256:…".
        size: bytes, uncompressed.
        layers: diff ids, from the lowest up.
        digests: "name@sha256:…" of the registries that it came from.
    """

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size: int
    layers: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True)
class RunResult:
    """How a container ended."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class RunOptions:
    """How a container is run; by default with nothing that it is not given.

    Attributes:
        mounts: bind mounts: source → target, or "target:ro".
        host_namespaces: share the host's cgroup namespace.
    """

    capabilities: Sequence[str] = ()
    mounts: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    network: str = "none"
    host_cgroups: bool = False
    read_only: bool = True
    entrypoint: str | None = None


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (docker.errors.APIError, docker.errors.DockerException) as error:
        text = str(getattr(error, "explanation", None) or error)
        raise _error(what, text) from error
    except _HUNG_UP as error:
        raise _gone(what, type(error).__name__) from error


def _gone(what: str, why: str) -> EngineError:
    hint = f"see whether it still runs; {_AGAIN}"
    return EngineError(f"{what}: the Docker engine is gone ({why})", hint=hint)


def _error(what: str, text: str) -> EngineError:
    line = " ".join(text.split())
    if "no space left on device" in line:
        hint = f"free some space on the file system of the engine's data; {_AGAIN}"
        return EngineError(f"{what}: the engine's disk is full", hint=hint)
    return EngineError(f"{what}: {line}", hint=_AGAIN)


class Engine:
    """A connection to an engine that answers."""

    def __init__(self, client: docker.DockerClient, *, url: str, private: bool) -> None:
        self._client = client
        self._api: Any = client.api  # its stubs leave much untyped
        self._url = url
        self.private = private

    @classmethod
    def connect(cls, url: str | None = None, *, private: bool = False) -> Engine:
        """Connect to the engine at a URL, or to the one that DOCKER_HOST or the default socket names.

        Raises:
            EngineError: none answers.
        """
        with _translated(f"no Docker engine at {url or 'the default socket'}"):
            client = (
                docker.DockerClient(base_url=url, timeout=_PING_SECONDS)
                if url
                else docker.from_env(timeout=_PING_SECONDS)
            )
            client.ping()
            client.api.timeout = _SECONDS
        return cls(
            client,
            url=url or os.environ.get("DOCKER_HOST") or "the default socket",
            private=private,
        )

    @property
    def description(self) -> str:
        """Where it is and which version."""
        with _translated("asking the engine"):
            version = self._client.version()
        return f"Docker {version['Version']} at {self._url}"

    def find(self, reference: str) -> ImageFacts | None:
        """The image with a tag, digest or id, if the engine has it."""
        try:
            with _translated(f"looking for {reference}"):
                return _facts(self._api.inspect_image(reference))
        except EngineError as error:
            if isinstance(error.__cause__, docker.errors.ImageNotFound):
                return None
            raise

    def find_labelled(self, label: str, value: str) -> ImageFacts | None:
        """An image with a label, tagged or not."""
        with _translated(f"looking for images with {label}"):
            found = self._api.images(filters={"label": [f"{label}={value}"]})
        return self.find(found[0]["Id"]) if found else None

    def layers(self, image: str) -> list[tuple[str, int]]:
        """The layers of an image, from the lowest up: what made each, and its size in bytes."""
        with _translated(f"asking for the layers of {image}"):
            history = self._api.history(image)
        return [(item["CreatedBy"], item["Size"]) for item in reversed(history)]

    def pull(self, reference: str) -> ImageFacts:
        """Pull an image by tag or digest."""
        with _translated(f"pulling {reference}"):
            for message in self._api.pull(reference, stream=True, decode=True):
                if "error" in message:
                    raise _error(f"pulling {reference}", message["error"])
        found = self.find(reference)
        if found is None:
            raise EngineError(f"pulling {reference}: the engine has it not")
        return found

    def build(
        self,
        context: IO[bytes],
        *,
        what: str,
        network: str | None,
        arguments: Mapping[str, str],
        say: Callable[[str], None],
    ) -> str:
        """Build an image from a context archive with a Dockerfile in it; returns its id.

        Args:
            context: an uncompressed tar.
            what: how to name it in an error.
            network: the network of RUN steps, None for the engine's default.
            arguments: values of ARG instructions.
            say: told each step.
        """
        made = ""
        with _translated(f"building {what}"):
            messages = self._api.build(
                fileobj=context,
                custom_context=True,
                rm=True,
                forcerm=True,
                buildargs=dict(arguments),
                network_mode=network,
                decode=True,
            )
            tail: list[str] = []
            for message in messages:
                if "error" in message:
                    raise _error(f"building {what}", " ".join([*tail[-3:], message["error"]]))
                made = message.get("aux", {}).get("ID", made)
                if line := message.get("stream", "").strip():
                    tail.append(line)
                    say(line)
        if not made:
            raise _gone(f"building {what}", "its answer ends before the image is there")
        return made

    def save(self, image: str, target: IO[bytes]) -> None:
        """Write an image archive (`docker save`)."""
        size = 0
        with _translated(f"saving {image}"):
            for chunk in self._api.get_image(image):
                size += target.write(chunk)
        if not size:
            raise _gone(f"saving {image}", "its answer is empty")

    def load(self, source: IO[bytes], *, what: str) -> str:
        """Load an image archive (`docker load`); returns the id that the engine gives it."""
        with _translated(f"loading {what}"):
            for message in self._api.load_image(source, quiet=True):
                if "error" in message:
                    raise _error(f"loading {what}", message["error"])
                for line in str(message.get("stream", "")).splitlines():
                    if line.startswith(("Loaded image ID: ", "Loaded image: ")):
                        return line.partition(": ")[2].strip()
        raise _gone(f"loading {what}", "its answer ends before it says what it loaded")

    def run(
        self, image: str, command: Sequence[str], *, options: RunOptions, what: str
    ) -> RunResult:
        """Run a container to its end and remove it."""
        with _translated(f"running {what}"):
            container = self._client.containers.create(image, list(command), **_arguments(options))
            try:
                container.start()
                status = container.wait()["StatusCode"]
                out = container.logs(stdout=True, stderr=False).decode(errors="replace")
                err = container.logs(stdout=False, stderr=True).decode(errors="replace")
            finally:
                container.remove(force=True)
        return RunResult(status, out, err)

    def read_file(self, image: str, path: str) -> bytes | None:
        """The contents of a file of an image, links followed; None where it is not there."""
        with _translated(f"reading {path} of {image}"):
            container = self._client.containers.create(image, ["/nothing-is-run"])
            try:
                return _read(container, path)
            except docker.errors.NotFound:
                return None
            finally:
                container.remove(force=True)

    def tag(self, image: str, reference: str) -> None:
        """Give an image a name; an image that had it loses it."""
        name, _, tag = reference.rpartition(":")
        with _translated(f"tagging {reference}"):
            self._api.tag(image, name, tag, force=True)

    def remove(self, image: str, *, keep_parents: bool = True) -> None:
        """Remove an image or a tag, if it is there and nothing uses it."""
        try:
            with _translated(f"removing {image}"):
                self._api.remove_image(image, noprune=keep_parents)
        except EngineError as error:
            if not isinstance(error.__cause__, docker.errors.APIError):
                raise

    def prune(self, *, hours: int, but: str) -> None:
        """Remove images without a name that are older than some hours, less those with a label."""
        with _translated("removing old images"):
            self._api.prune_images(
                filters={"dangling": True, "until": f"{hours}h", "label!": [but]}
            )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _facts(found: Mapping[str, Any]) -> ImageFacts:
    return ImageFacts(
        id=found["Id"],
        tags=tuple(found.get("RepoTags") or ()),
        labels=(found.get("Config") or {}).get("Labels") or {},
        size=found["Size"],
        layers=tuple(found["RootFS"].get("Layers") or ()),
        digests=tuple(found.get("RepoDigests") or ()),
    )


def _arguments(options: RunOptions) -> dict[str, Any]:
    extra: dict[str, Any] = {"cgroupns": "host"} if options.host_cgroups else {}
    if options.entrypoint:
        extra["entrypoint"] = options.entrypoint
    return {
        "cap_drop": ["ALL"],
        "cap_add": list(options.capabilities),
        "environment": dict(options.environment),
        "network_mode": options.network,
        "read_only": options.read_only,
        "tmpfs": {"/tmp": "", "/run": ""},  # noqa: S108 - inside the container
        "volumes": [f"{source}:{target}" for source, target in options.mounts.items()],
        **extra,
    }


def _read(container: Any, path: str) -> bytes | None:
    for _ in range(8):
        chunks, _ = container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            member = tar.next()
            if member is None or not (member.isreg() or member.issym()):
                return None
            if member.isreg():
                stream = tar.extractfile(member)
                return stream.read() if stream else None
            parent = path.rpartition("/")[0]
            target = member.linkname
            path = target if target.startswith("/") else f"{parent}/{target}"
    return None
