# SPDX-License-Identifier: Apache-2.0
"""How an image came to be: an in-toto statement with an SLSA 1.0 provenance predicate.

It names every input by digest, every command that made something, and the versions of the tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from builder.checkout import SOURCE, Checkout
from builder.prepared import PreparedBase

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = f"{SOURCE}/kmesh-build/v1"


@dataclass(frozen=True)
class BuildFacts:
    """What a build knows about one image.

    Attributes:
        reference: its name.
        image_id: its id.
        inputs: the key that covers all that it was made of.
        parts: digests of what was put on the base.
        dockerfile: the Dockerfile that was used.
        compiler: what compiled the BPF objects.
        engine: the engine's version.
        smoke: the checks that it passed.
    """

    reference: str
    image_id: str
    inputs: str
    base: PreparedBase
    parts: Mapping[str, str]
    dockerfile: str
    compiler: str
    engine: str
    smoke: Sequence[str]


def write_provenance(target: Path, checkout: Checkout, facts: BuildFacts) -> None:
    """Write the statement as JSON."""
    target.write_text(json.dumps(statement(checkout, facts), indent=1) + "\n")


def statement(checkout: Checkout, facts: BuildFacts) -> dict[str, Any]:
    """The statement as JSON data."""
    return {
        "_type": _STATEMENT,
        "subject": [{"name": facts.reference, "digest": _digest(facts.image_id)}],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {
                    "image": facts.reference,
                    "base": facts.base.choice.label,
                    "baseReason": facts.base.choice.reason,
                    "sourceDateEpoch": checkout.epoch,
                },
                "internalParameters": {
                    "inputs": facts.inputs,
                    "dockerfile": facts.dockerfile.splitlines(),
                    "baseCommand": list(facts.base.command),
                },
                "resolvedDependencies": _dependencies(checkout, facts),
            },
            "runDetails": {
                "builder": {"id": f"{SOURCE}/kmesh-build", "version": _tools(facts)},
                "metadata": {"smokeRun": list(facts.smoke)},
            },
        },
    }


def _dependencies(checkout: Checkout, facts: BuildFacts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"uri": f"git+{SOURCE}", "digest": {"gitCommit": checkout.revision}},
        {"name": facts.base.choice.label, "digest": _digest(facts.base.digest)},
    ]
    found += [{"name": name, "digest": {"sha256": value}} for name, value in facts.parts.items()]
    for line in facts.base.inputs:
        name, _, value = line.rpartition(" ")
        found.append({"name": name, "digest": _digest(value)})
    return found


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.rpartition(":")
    return {algorithm.lower() or "sha256": value}


def _tools(facts: BuildFacts) -> dict[str, str]:
    found = {"clang": facts.compiler, "engine": facts.engine}
    for name in ("kmesh", "docker", "Jinja2", "spdx-tools", "pip"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
