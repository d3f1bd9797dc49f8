# SPDX-License-Identifier: Apache-2.0
"""Commands that run for long: their output goes to a log file, and an interrupt ends all of them.

`runtime.process.run` kills the one process that it started. mmdebstrap and dnf have children and
mounts of their own and must be asked to end, so that they clean up.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.process import CommandError

_GRACE_SECONDS = 20


def run_logged(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, its output in a log file.

    Raises:
        CommandError: it did not start or ended non-zero; with the end of its output.
    """
    with log.open("wb") as stream:
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        except OSError as error:
            reason = f"cannot start {argv[0]} ({error.strerror})"
            raise CommandError(reason, argv=argv, status=None, output="") from error
        status = _wait(child)
    if status != 0:
        output = log.read_text(errors="replace")
        raise CommandError(f"ended with status {status}", argv=argv, status=status, output=output)


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait()
    except BaseException:
        end_group(child)
        raise


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Ask a process group that we started to end, and make it when it does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, number)
        try:
            child.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return
