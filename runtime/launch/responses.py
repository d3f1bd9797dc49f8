# SPDX-License-Identifier: Apache-2.0
"""The way that responses of the enhanced path take: put into effect, and told.

The gate's way is always sound. So where the kernel's cannot be had, whoever wanted it, the gate's
is taken, and that is said aloud: nobody's traffic ends for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime import log
from runtime.errors import KmeshError
from runtime.kernel.datapath import DataPath
from runtime.kernel.home import bring_home, send_by_gate
from runtime.probe.responses import GATE, KERNEL, in_words, responses_decision
from runtime.probe.verdict import Finding

_log = log.get("launch")


class Responses:
    """Which way responses take on a path that has just been opened.

    Args:
        path: the enhanced path, open; what an earlier daemon chose for it gives way.
        objects: the directory of compiled objects.
        findings: the prober's.
        wanted: "auto", "gate" or "kernel".

    Raises:
        KmeshError: the kernel did not give up the way of before.
    """

    def __init__(
        self, path: DataPath, *, objects: Path, findings: Iterable[Finding], wanted: str
    ) -> None:
        self._wanted = wanted
        self.decision = responses_decision(findings, wanted=wanted)
        if self.decision.way == KERNEL:
            self._bring_home(path, objects)
        if self.decision.way == GATE and send_by_gate(path):
            _log.info("responses went home within the kernel before; from now on by the gate")
        say = _log.warning if self.decision.warned else _log.info
        say("responses: %s", self.in_words())

    def _bring_home(self, path: DataPath, objects: Path) -> None:
        try:
            bring_home(path, objects)
        except KmeshError as error:
            self.decision = replace(
                self.decision, way=GATE, reasons=(str(error),), remedy=error.hint or "", warned=True
            )

    def in_words(self) -> str:
        refused = self._wanted == KERNEL and self.decision.way == GATE
        return ("--responses kernel cannot be had here, " if refused else "") + in_words(
            self.decision
        )

    def status(self) -> dict[str, Any]:
        """The way, what was wanted, why, and what would let them go within the kernel."""
        return {"wanted": self._wanted, **self.decision.to_json(), "told": self.in_words()}
