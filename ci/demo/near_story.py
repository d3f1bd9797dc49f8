# SPDX-License-Identifier: Apache-2.0
"""A server of the same node that is managed too: its requests go from queue to queue, past TCP."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ci.demo import tell
from ci.demo.mesh_story import check
from ci.demo.pods import Pods
from ci.demo.stage import DemoError, Stage
from ci.demo.talker import Talker, tell_race

_FILE = Path(__file__).with_name("near.yaml")
_NEAR, _PORT = "10.96.0.20:80", 8081
_REQUEST = {"method": "GET", "path": "/", "headers": {}, "size": 0, "host": "near"}
_ROUNDS = 500
_WARM = 4  # the first go by the gate, which opens a connection
_WAYS = {
    "direct": "straight to an unmanaged one, by TCP",
    "routed": "the service, routed and past TCP",
}


def tell_near(stage: Stage, pods: Pods, direct: str) -> dict[str, Any]:
    """Tell it.

    Args:
        stage: with no daemon.
        pods: the namespaces.
        direct: address and port of a server that is not managed.

    Returns:
        what was seen, ready for JSON; `lacking`: why it cannot be had here.

    Raises:
        DemoError: something was not as told.
    """
    tell.step("Within one node, past TCP")
    shutil.copy(_FILE, stage.services)
    try:
        stage.start_daemon("--source", f"files:{stage.services}", "--acceleration")
    except DemoError as error:
        why = str(error).splitlines()[-1]
        tell.say(f"Not on this kernel: {why}")
        return {"lacking": why}
    pods.start_managed("near", _PORT)
    client = Talker(stage, pods.client)
    stage.wait_for(lambda: _answers(client), "the service is not there")
    for _ in range(_WARM):
        client("ask", _NEAR, _REQUEST)
    before = _past(stage)
    took = client("race", {"direct": direct, "routed": _NEAR}, _REQUEST, _ROUNDS)
    shares = tell_race(took, _WAYS, rounds=_ROUNDS)
    number = _past(stage) - before
    client.end()
    check(
        number == _ROUNDS,
        f"all {_ROUNDS} requests went into the server's queue past TCP, and their responses back",
        f"{number} of {_ROUNDS} went past TCP",
    )
    return {"requests": _ROUNDS, "past_tcp": number, **shares}


def _answers(client: Talker) -> bool:
    try:
        return int(client("ask", _NEAR, _REQUEST)["status"]) == 200
    except DemoError:
        return False


def _past(stage: Stage) -> int:
    return int(stage.ask("status")["telemetry"]["http"]["past_tcp"]["requests"])
