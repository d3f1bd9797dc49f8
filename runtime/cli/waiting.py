# SPDX-License-Identifier: Apache-2.0
"""Waiting for a daemon that is just starting, and saying so meanwhile."""

from __future__ import annotations

import time

import click

from runtime.errors import KmeshError
from runtime.server.client import Client, DaemonDownError, DaemonError

_EVERY = 0.2


def wait_for_daemon(client: Client, *, seconds: float, who: str) -> None:
    """Return once the daemon serves.

    Args:
        client: asks it.
        seconds: how long to wait at most; 0: it serves now, or that is an error.
        who: the command that waits, for what is said to the user.

    Raises:
        KmeshError: it does not in time; with what it is at, or that nobody answers.
    """
    deadline = time.monotonic() + seconds
    said = ""
    trouble: KmeshError
    while True:
        try:
            phase = _phase(client)
        except DaemonDownError as error:
            phase, trouble = "nobody answers yet", error
        else:
            if phase is None:
                return
            trouble = KmeshError(
                f"the kmesh daemon does not serve yet: {phase}",
                hint="its log says what it waits for; --wait SECONDS waits longer",
            )
        if time.monotonic() >= deadline:
            raise _after(trouble, seconds)
        if phase != said:
            told = f"{who}: waiting up to {seconds:g} s for the daemon: {phase}"
            click.echo(told, err=True)
            said = phase
        time.sleep(_EVERY)


def _after(trouble: KmeshError, seconds: float) -> KmeshError:
    if not seconds:
        return trouble
    return KmeshError(f"{trouble} (waited {seconds:g} s)", hint=trouble.hint)


def _phase(client: Client) -> str | None:
    """What the daemon is at before it serves; None when it does."""
    try:
        status = client.get("/status")
    except DaemonError as error:  # it answers, but is not far enough to tell of itself
        return str(error)
    if status["counts"]["start_seconds"] is not None:
        return None
    return str(status["not_ready"])
