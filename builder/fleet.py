# SPDX-License-Identifier: Apache-2.0
"""A fleet's kernels, judged from their files: which mode each gets, why not better, and what to change.

Nodes with the same evidence are judged once.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.fleet_changes import Change, changes
from builder.fleet_groups import RANK, Group, Judged, grouped
from runtime.errors import KmeshError
from runtime.probe.cache import Inspections
from runtime.probe.run import probe_offline

_BTF = ("btf", "vmlinux", "vmlinux.btf", "*.btf", "vmlinux-*")
_CONFIG = ("config", "config.gz", "*.config", "config-*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What there is about one node's kernel."""

    node: str
    release: str
    btf: Path | None
    config: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What was found out.

    Attributes:
        kernels: each kind once.
        groups: the same, by mode and by what they lack.
        changes: what could be done about it.
    """

    kernels: tuple[Judged, ...]
    groups: tuple[Group, ...]
    changes: tuple[Change, ...]

    @property
    def modes(self) -> Counter[str]:
        """Nodes by mode."""
        counted: Counter[str] = Counter()
        for kernel in self.kernels:
            counted[kernel.mode] += len(kernel.nodes)
        return counted


def find_evidence(directory: Path) -> list[Evidence]:
    """The kernels of a directory: RELEASE.btf with RELEASE.config, or a directory a node.

    A node's directory holds `btf` (or vmlinux), `config` and `release`; what is missing is made up for
    as far as it can be.

    Raises:
        KmeshError: there are none.
    """
    flat = [_flat(path) for path in sorted(directory.glob("*.btf"))]
    nodes = [_node(path) for path in sorted(directory.iterdir()) if path.is_dir()]
    found = [*flat, *(node for node in nodes if node.btf or node.config)]
    if not found:
        raise KmeshError(
            f"no kernels in {directory}",
            hint="RELEASE.btf and RELEASE.config, or a directory a node with btf, config, release",
        )
    return found


def _flat(btf: Path) -> Evidence:
    places = (btf.with_suffix(".config"), btf.with_name(f"config-{btf.stem}"))
    config = next((path for path in places if path.is_file()), None)
    name = btf.name.removesuffix(".btf")
    return Evidence(node=name, release=name, btf=btf, config=config)


def _node(directory: Path) -> Evidence:
    said = directory / "release"
    release = said.read_text(errors="replace").strip() if said.is_file() else directory.name
    return Evidence(
        node=directory.name,
        release=release,
        btf=_first(directory, _BTF),
        config=_first(directory, _CONFIG),
    )


def _first(directory: Path, patterns: Iterable[str]) -> Path | None:
    found = (path for pattern in patterns for path in sorted(directory.glob(pattern)))
    return next((path for path in found if path.is_file()), None)


def judge_fleet(evidence: Sequence[Evidence], *, objects: Path) -> Fleet:
    """Judge every kernel for the objects of this build.

    Args:
        evidence: of all nodes.
        objects: compiled objects.
    """
    same: defaultdict[str, list[Evidence]] = defaultdict(list)
    for each in evidence:
        same[_key(each)].append(each)
    inspections = Inspections(enabled=False)  # of this run alone
    kernels = tuple(_judge(group, objects, inspections) for group in same.values())
    ordered = sorted(kernels, key=lambda one: (RANK.get(one.mode, -1), one.release))
    return Fleet(kernels=tuple(ordered), groups=grouped(ordered), changes=changes(ordered))


def _key(evidence: Evidence) -> str:
    digest = hashlib.sha256(evidence.release.encode())
    for path in (evidence.btf, evidence.config):
        digest.update(b"\0")
        if path:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _judge(group: Sequence[Evidence], objects: Path, inspections: Inspections) -> Judged:
    first, nodes = group[0], tuple(each.node for each in group)
    try:
        report = probe_offline(
            btf=first.btf,
            config=first.config,
            release=first.release,
            objects=objects,
            inspections=inspections,
        )
    except KmeshError as error:
        return Judged(release=first.release, nodes=nodes, report=None, problem=str(error))
    return Judged(release=first.release, nodes=nodes, report=report)
