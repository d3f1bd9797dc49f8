# SPDX-License-Identifier: Apache-2.0
"""A kernel update under a node: one boot after another over the same disk, and what was said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Told = Mapping[str, Any]
# Stages for the boot of the old kernel, and for that of the new one over what the old one left. The last
# has a right taken away, so that nothing can run there.
BEFORE, AFTER = ("update-first",), ("update-again", "update-unable")
_KEPT = {"probe-cache.json", "state.json"}


def check_update(old: Told, new: Told) -> list[str]:
    """Everything that was not as it should be, a line each.

    Args:
        old, new: rows of the matrix, with those stages.
    """
    [first], [again, unable] = old["update"], new["update"]
    return list(differences(first, again, unable, releases=(old["release"], new["release"])))


def differences(
    first: Told, again: Told, unable: Told, *, releases: tuple[str, str]
) -> Iterator[str]:
    """What a node must not do after its kernel has changed, and did."""
    if first["mode"] == "none":
        yield f"the first boot served nothing: {first['log'][-600:]}"
        return
    if missing := _KEPT - set(again["found"]):
        yield f"nothing was tried: {', '.join(sorted(missing))} did not outlive the first boot"
    if again["probe_cached"]:
        yield "the verdict of the old kernel was believed on the new one"
    if again["adopted"]:
        yield "a data path of the old kernel was taken to be serving"
    if taken := sorted(set(again["managed"]) & set(again["noted"])):
        yield f"cgroups of the old boot were taken to be managed: {', '.join(taken)}"
    if set(again["answers"]) != {"blue", "green"}:
        yield f"after the update not both backends answered: {again['answers']}"
    previous = again["previous"] or {}
    if previous.get("release") != releases[0] or not previous.get("kernel_changed"):
        yield f"the new kernel was not noticed: {previous}"
    yield from _announcements(again, unable, release=releases[1])


def _announcements(again: Told, unable: Told, *, release: str) -> Iterator[str]:
    if "NEW KERNEL" not in again["log"] or release not in again["log"]:
        yield "the new kernel was not announced in the log"
    if unable["mode"] != "none" or not unable["status"]:
        yield f"the last start was not refused: {unable['log'][-600:]}"
    if f"MODE CHANGED since the last run: {again['mode']}, now none" not in unable["log"]:
        yield f"the change of mode was not announced: {unable['log'][-600:]}"
