# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.cluster.manifests`: the chart as plain manifests, for those who use no Helm. Never edited."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ci.cluster import binaries
from ci.cluster.machine import TOP
from runtime.errors import KmeshError
from runtime.process import run

CHART = TOP / "helm" / "kmesh"
MANIFESTS = TOP / "helm" / "manifests"
_KUBERNETES = "1.34.4"
_LICENSE = "# SPDX-License-Identifier: Apache-2.0\n"
# Each file, and the templates that it is rendered from. kmesh.yaml alone takes the others for granted.
FILES: Mapping[str, tuple[str, ...]] = {
    "serviceaccount.yaml": ("serviceaccount",),
    "clusterrole.yaml": ("clusterrole",),
    "clusterrolebinding.yaml": ("clusterrolebinding",),
    "kmesh.yaml": ("configmap", "daemonset"),
    "l7-envoyfilter.yaml": ("l7-envoyfilter",),
    "cleanup.yaml": ("cleanup",),
}


def template(
    *arguments: str, kubernetes: str = _KUBERNETES, namespace: str = "kmesh-system"
) -> str:
    """What Helm makes of the chart. Raises: KmeshError: it refuses."""
    helm = str(binaries.helm())
    fixed = [
        "template",
        "kmesh",
        str(CHART),
        "--namespace",
        namespace,
        "--kube-version",
        kubernetes,
    ]
    return run([helm, *fixed, *arguments]).stdout


def rendered() -> dict[str, str]:
    """Every file's content, by name."""
    return {name: _render(templates) for name, templates in FILES.items()}


def _render(templates: tuple[str, ...]) -> str:
    only = [part for name in templates for part in ("--show-only", f"templates/{name}.yaml")]
    text = template("--set", "waypointFilter.enabled=true", *only)
    return _LICENSE + _plain(text)


def _plain(text: str) -> str:
    """Without what only Helm needs: hooks, and who manages it."""
    helms = ("helm.sh/", "app.kubernetes.io/managed-by: Helm", "# Source: ", "# SPDX-")
    lines = [line for line in text.splitlines() if not any(each in line for each in helms)]
    kept = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        indent = len(line) - len(line.lstrip())
        if line.strip() == "annotations:" and len(following) - len(following.lstrip()) <= indent:
            continue
        kept.append(line)
    return "\n".join(kept) + "\n"


def main() -> int:
    """Write the files."""
    try:
        for name, text in rendered().items():
            (MANIFESTS / name).write_text(text)
    except KmeshError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def written() -> dict[str, str]:
    """What is in the clone."""
    return {path.name: path.read_text() for path in sorted(Path(MANIFESTS).glob("*.yaml"))}


if __name__ == "__main__":
    sys.exit(main())
