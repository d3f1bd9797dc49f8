# SPDX-License-Identifier: Apache-2.0
"""Kubernetes and Helm as one binary each: built once, and kept outside the clone under a key of their content."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from builder.cache import cache_dir, content_key, entry
from runtime.errors import KmeshError
from runtime.process import CommandError, run

KUBERNETES = "v1.34.4"
HELM = "v3.19.0"
_HERE = Path(__file__).with_name("kube")
_OLDEST_GO = (1, 24)
_BUILD_SECONDS = 3600


def why_not() -> str | None:
    """Why nothing can be built here, or None when it can, or need not be."""
    if all(place.is_dir() for place in (_kube_place(), _helm_place())):
        return None
    go = shutil.which("go")
    if go is None:
        return "no Go compiler to build Kubernetes with"
    found = re.search(r"go(\d+)\.(\d+)", run([go, "version"]).stdout)
    version = tuple(map(int, found.groups())) if found else (0, 0)
    oldest = ".".join(map(str, _OLDEST_GO))
    return None if version >= _OLDEST_GO else f"Kubernetes needs Go {oldest} or later to be built"


def kube() -> Path:
    """The binary that is API server, controller manager, scheduler and kubelet.

    Raises:
        KmeshError: it cannot be built.
    """

    def make(directory: Path) -> None:
        flags = f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}"
        target = str(directory / "kube")
        _go(["build", "-trimpath", "-ldflags", flags, "-o", target, "."], cwd=_HERE)

    return entry(cache_dir(), "kube", _kube_key(), make) / "kube"


def helm() -> Path:
    """Helm. Raises: KmeshError: it cannot be built."""

    def make(directory: Path) -> None:
        _go(["install", f"helm.sh/helm/v3/cmd/helm@{HELM}"], cwd=directory, gobin=directory)

    return entry(cache_dir(), "helm", _helm_key(), make) / "helm"


def _kube_key() -> str:
    files = [(_HERE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go")]
    return content_key("kube", KUBERNETES, *files)


def _helm_key() -> str:
    return content_key("helm", HELM)


def _kube_place() -> Path:
    return cache_dir() / "kube" / _kube_key()[:32]


def _helm_place() -> Path:
    return cache_dir() / "helm" / _helm_key()[:32]


def _go(arguments: list[str], *, cwd: Path, gobin: Path | None = None) -> None:
    # The checksum database need not be reachable: go.sum pins every byte of Kubernetes.
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -mod=readonly" if gobin is None else "-buildvcs=false",
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
        **({"GOBIN": str(gobin)} if gobin else {}),
    }
    try:
        run(
            ["nice", "-n", "10", "go", *arguments], cwd=cwd, env=environment, timeout=_BUILD_SECONDS
        )
    except CommandError as error:
        raise KmeshError(
            f"cannot build it from its Go module: {error}",
            hint="is Go's module proxy reachable (go env GOPROXY)?",
        ) from error
