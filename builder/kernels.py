# SPDX-License-Identifier: Apache-2.0
"""Which known kernels an image will serve: judged from their BTF and configuration, with the prober's own code.

The evidence is in builder/data/kernels, one BTF and one configuration a kernel. It decides by
facts and names alone, and is reported as that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builder.recipes import Recipe
from runtime.probe.run import probe_offline

DATA = Path(__file__).parent / "data" / "kernels"


@dataclass(frozen=True)
class KernelVerdict:
    """What a kernel runs with the objects of this build.

    Attributes:
        mode: with these objects: "enhanced", "compat" or "none".
        kernel_mode: what the kernel by itself could run.
        reasons: why not better.
    """

    release: str
    mode: str
    kernel_mode: str
    reasons: tuple[str, ...]


def judge_known(objects: Path, *, data: Path = DATA) -> tuple[KernelVerdict, ...]:
    """Judge every kernel whose evidence is kept, oldest first.

    Args:
        objects: the directory of compiled objects.
        data: the directory of evidence: RELEASE.btf and RELEASE.config.
    """
    files = sorted(data.glob("*.btf"), key=lambda path: _numbers(path.stem))
    return tuple(_judge(path, objects) for path in files)


def _judge(btf: Path, objects: Path) -> KernelVerdict:
    config = btf.with_name(f"{btf.stem}.config")
    report = probe_offline(
        btf=btf, config=config if config.exists() else None, release=btf.stem, objects=objects
    )
    made = report.mode
    return KernelVerdict(btf.stem, str(made.mode), str(made.kernel_mode), tuple(made.reasons))


def _numbers(release: str) -> tuple[int, ...]:
    head = release.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0]
    return tuple(int(part) for part in head.split(".") if part.isdigit())


def kernels_of(image: Recipe, verdicts: tuple[KernelVerdict, ...]) -> tuple[KernelVerdict, ...]:
    """The verdicts that say something about an image: none about one that runs no path."""
    return verdicts if image.runs else ()


def summary(image: Recipe, verdicts: tuple[KernelVerdict, ...]) -> str:
    """One cell of a table: "compat: 5.10; compat (kernel: enhanced): 6.1, 6.12; none: 4.19".

    Args:
        image: what was built. Whether any kernel of the distribution that it is meant for is known is told.
        verdicts: what is known about kernels.
    """
    if not image.runs:
        return "runs on none: it compiles"
    groups: dict[str, list[str]] = {}
    for verdict in verdicts:
        short = ".".join(str(number) for number in _numbers(verdict.release)[:2])
        more = f" (kernel: {verdict.kernel_mode})" if verdict.kernel_mode != verdict.mode else ""
        groups.setdefault(f"{verdict.mode}{more}", []).append(short)
    said = [f"{mode}: {', '.join(names)}" for mode, names in groups.items()]
    mark = image.base.kernel_mark
    if mark and not any(mark in verdict.release for verdict in verdicts):
        said.append(f"none of {image.base.os_id} is known")
    return "; ".join(said) or "none known"
