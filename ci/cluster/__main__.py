# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.cluster up [host|v2]|down|exec|prepare`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ci.cluster import binaries
from ci.cluster.cgroups import CHOICES
from ci.cluster.machine import Machine, why_not
from ci.cluster.sample import bring_up
from runtime.errors import KmeshError

HOME = Path("build/cluster")
_USAGE = "usage: python -m ci.cluster up [host | v2] | down | exec -- COMMAND... | prepare"


def main(arguments: list[str]) -> int:
    machine = Machine(HOME)
    match arguments:
        case ["up"]:
            bring_up(machine)
        case ["up", groups] if groups in CHOICES:
            bring_up(Machine(HOME, cgroups=groups))
        case ["down"]:
            machine.down()
            print("the cluster is gone")
        case ["prepare"]:
            prepare()
        case ["exec", "--", *command] | ["exec", *command] if command:
            argv = machine.inside(command)
            os.execvp(argv[0], argv)  # noqa: S606 - becomes the command
        case _:
            print(_USAGE, file=sys.stderr)
            return 2
    return 0


def prepare() -> None:
    """Build what the cluster's tests need, once; where that cannot be, they are skipped, and say why."""
    if reason := why_not():
        print(f"cluster: its tests will be skipped: {reason}")
        return
    if not binaries.are_built():
        print(
            "cluster: building Kubernetes and Helm, once (kept outside the clone) ...", flush=True
        )
    try:
        binaries.kube()
        binaries.helm()
    except KmeshError as error:
        print(f"cluster: its tests will be skipped: {error}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KmeshError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        sys.exit(1)
