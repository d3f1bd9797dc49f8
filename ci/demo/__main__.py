# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.demo [--path auto|enhanced|compat] [--output text|json]`, as root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import click

from ci.demo import tell
from ci.demo.http_story import tell_requests
from ci.demo.stage import KMESH, DemoError, Stage
from ci.demo.story import tell_story

_INSIDE = "--inside"
_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "curl": "curl"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--path",
    type=click.Choice(["auto", "enhanced", "compat"]),
    default="auto",
    show_default=True,
    help="The path to show; auto: enhanced where this kernel and build run it, else compat.",
)
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: what was seen, to standard output; the story goes to standard error.",
)
@click.option(_INSIDE, is_flag=True, hidden=True)
@click.pass_context
def main(ctx: click.Context, *, path: str, output: str, inside: bool) -> None:
    """Show what Kmesh does, for real, on this machine alone: a small shop is served and each step is told.

    enhanced: one connection, each of its requests routed by the kernel to the version that its headers ask for.
    compat: services balanced, a policy that holds, and a daemon that is killed without a connection noticing.

    It runs as root, in a network namespace of its own, takes about half a minute, and removes everything afterwards.

    \b
    Example:
      python -m ci.demo
      python -m ci.demo --path compat --output json
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    ctx.exit(_demo(path, output, inside=inside))


def _demo(path: str, output: str, *, inside: bool) -> int:
    if output == "json":
        tell.to_stderr()
    if os.geteuid() != 0:
        tell.bad("the demo loads programs into the kernel: run it as root (sudo make demo)")
        return 1
    if not inside:
        _enter_namespace()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        seen = _play(path)
    except DemoError as error:
        tell.bad(str(error))
        return 1
    except KeyboardInterrupt:
        tell.bad("interrupted; everything that was started has been ended and removed")
        return 130
    if output == "json":
        print(json.dumps(seen, indent=2))
    return 0


def _enter_namespace() -> None:
    """Start over in a new network namespace, which ends with the last process in it."""
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            tell.bad(f"the demo needs {tool} (Debian: {package})")
            sys.exit(1)
    again = [sys.executable, "-m", "ci.demo", _INSIDE, *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "--net", "--", *again])  # noqa: S606 - becomes the demo


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _play(path: str) -> dict[str, Any]:
    """Tell of the enhanced path where this kernel and build run it, and else of the other.

    Raises:
        DemoError: something was not as told, or the path that was asked for does not run here.
    """
    missing = _missing() if path != "compat" else []
    if path == "compat" or (missing and path == "auto"):
        if missing:
            tell.say("The enhanced path does not run here, so this shows the compat path instead:")
            tell.output(missing)
        with Stage(mode="compat") as stage:
            tell_story(stage)
        return {"mode": "compat", "enhanced_lacks": missing}
    if missing:
        raise DemoError("the enhanced path does not run here: " + "; ".join(missing))
    with Stage(mode="enhanced") as stage:
        return tell_requests(stage)


def _missing() -> list[str]:
    """What the enhanced path lacks here, as the prober says; nothing where it runs."""
    argv = [str(KMESH), "probe", "--output", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    try:
        mode = json.loads(done.stdout)["mode"]
    except (ValueError, KeyError) as error:
        raise DemoError(f"kmesh probe does not tell: {done.stderr.strip()}") from error
    return (
        [] if mode["mode"] == "enhanced" else list(mode["refused"].get("enhanced", ["no reason"]))
    )


if __name__ == "__main__":
    main(prog_name="python -m ci.demo")
