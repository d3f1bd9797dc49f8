# SPDX-License-Identifier: Apache-2.0
"""Running a command as if it had been started directly: its terminal, its signals, its exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from runtime.errors import KmeshError
from runtime.kernel.netns import enter_netns, open_netns

_FORWARDED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    }
)


class CannotStartError(KmeshError):
    """The command could not be started; `status` is what a shell would exit with."""

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


def run_in_cgroup(argv: Sequence[str], *, procs: int) -> int:
    """Run a command in a cgroup to its end, handing on every signal.

    Args:
        argv: the command.
        procs: an open descriptor of the cgroup's cgroup.procs.

    Returns:
        its exit status, 128 + N when signal N ended it.

    Raises:
        CannotStartError: there is no such command, or it cannot be executed.
    """
    hint = (
        "from within a container that has control groups of its own no other can be entered where they are "
        "delegated (nsdelegate): run it on the host, start the container with --cgroupns host, or use --netns"
    )
    return _run(argv, lambda: os.write(procs, b"0"), where="its cgroup", hint=hint)


def run_in_netns(argv: Sequence[str], netns: Path) -> int:
    """The same in a network namespace.

    Raises:
        NetnsError: there is none at that path.
        CannotStartError: there is no such command, or it cannot be executed.
    """
    handle = open_netns(netns)
    try:
        return _run(argv, lambda: enter_netns(handle), where=str(netns))
    finally:
        os.close(handle)


def _run(
    argv: Sequence[str], enter: Callable[[], object], *, where: str, hint: str | None = None
) -> int:
    watched = {*_FORWARDED, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, watched)

    def before() -> None:  # in the child, before the command: its first connection is governed
        enter()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        child = subprocess.Popen(argv, preexec_fn=before)  # noqa: PLW1509 - one thread here
        return _wait(child, watched)
    except FileNotFoundError as error:
        raise CannotStartError(f"{argv[0]}: command not found", status=127) from error
    except OSError as error:
        raise CannotStartError(f"cannot run {argv[0]}: {error.strerror}", status=126) from error
    except subprocess.SubprocessError as error:  # `enter` failed: the command has not run
        message = f"{argv[0]} cannot enter {where}"
        raise CannotStartError(message, status=126, hint=hint) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait(child: subprocess.Popen[bytes], watched: set[signal.Signals]) -> int:
    # The kernel's SIGCHLD may go to any thread that does not block it, and be lost there. So the
    # end of the child is told to this thread, which does.
    waiting = threading.get_ident()

    def tell() -> None:
        with suppress(ChildProcessError):  # it has been seen already
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        signal.pthread_kill(waiting, signal.SIGCHLD)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    status = _hand_on(child, watched)
    teller.join()
    return status if status >= 0 else 128 - status


def _hand_on(child: subprocess.Popen[bytes], watched: set[signal.Signals]) -> int:
    while True:
        info = signal.sigwaitinfo(watched)
        # The terminal sends its signals to the command too: only those of other processes
        # (si_code <= 0) are handed on, lest Ctrl-C arrive twice.
        if info.si_signo != signal.SIGCHLD and info.si_code <= 0:
            child.send_signal(info.si_signo)
        if info.si_signo == signal.SIGCHLD and child.poll() is not None:
            return child.returncode
