# SPDX-License-Identifier: Apache-2.0
"""The one way to run another program: an argument list, never a shell string."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.errors import KmeshError

_TAIL_LINES = 8


class CommandError(KmeshError):
    """A command that could not be started, ended non-zero or took too long.

    Attributes:
        argv: the command.
        status: its exit status, negative for a signal, None when it did not start or timed out.
        output: what it wrote to standard error, and to standard output where that was captured.
    """

    def __init__(
        self, reason: str, *, argv: Sequence[str], status: int | None, output: str
    ) -> None:
        tail = "\n".join(output.strip().splitlines()[-_TAIL_LINES:])
        super().__init__(
            f"{reason}: {shlex.join(argv)}" + (f"\n{tail}" if tail else ""),
            hint="run the command above by hand to see all of its output",
        )
        self.argv = tuple(argv)
        self.status = status
        self.output = output


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its output as text.

    Args:
        argv: program and arguments.
        cwd: the directory to run it in.
        env: the whole environment, or None for this process's.
        stdin: bytes for its standard input; without, it reads nothing.
        timeout: seconds after which it is killed.
        check: raise when it ends non-zero.

    Raises:
        CommandError: it did not start, took too long, or (with check) ended non-zero.
    """
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        reason = f"cannot start {argv[0]} ({error.strerror})"
        raise CommandError(reason, argv=argv, status=None, output="") from error
    except subprocess.TimeoutExpired as error:
        output = (error.stderr or b"").decode(errors="replace")
        reason = f"no end after {timeout:g} s"
        raise CommandError(reason, argv=argv, status=None, output=output) from error
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if check and done.returncode != 0:
        reason = f"ended with status {done.returncode}"
        raise CommandError(reason, argv=argv, status=done.returncode, output=out + err)
    return subprocess.CompletedProcess(list(argv), done.returncode, out, err)
