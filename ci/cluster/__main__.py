# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.cluster up|down|exec`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ci.cluster.machine import Machine
from ci.cluster.sample import bring_up
from runtime.errors import KmeshError

HOME = Path("build/cluster")
_USAGE = "usage: python -m ci.cluster up | down | exec -- COMMAND..."


def main(arguments: list[str]) -> int:
    machine = Machine(HOME)
    match arguments:
        case ["up"]:
            bring_up(machine)
        case ["down"]:
            machine.down()
            print("the cluster is gone")
        case ["exec", "--", *command] | ["exec", *command] if command:
            argv = machine.inside(command)
            os.execvp(argv[0], argv)  # noqa: S606 - becomes the command
        case _:
            print(_USAGE, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KmeshError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        sys.exit(1)
