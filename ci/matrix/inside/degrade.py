# SPDX-License-Identifier: Apache-2.0
"""Carrying a scenario out: the prober's report there, and what `kmesh run` does."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ci.matrix.inside import node, system
from ci.matrix.inside.expect import complaints
from ci.matrix.inside.scenarios import SCENARIOS, Scenario
from runtime.errors import KmeshError
from runtime.objects.locate import objects_dir
from runtime.probe.facts import running_facts
from runtime.probe.run import probe

_REQUESTS = 24  # of two backends, one is left out by chance once in eight million times


def degrade(name: str) -> dict[str, Any]:
    """Carry a scenario out, and compare.

    Returns:
        its title, the mode, the findings that it is about, and what was not as expected.
    """
    scenario = _for_this_kernel(SCENARIOS[name])

    def before() -> None:
        system.own_mounts()
        scenario.apply()

    report = _report(before, battery=scenario.battery)
    try:
        run = _run(before)
    except (KmeshError, OSError) as error:  # the others are still to be tried
        run = {"mode": "unknown", "status": 1, "log": f"{type(error).__name__}: {error}"}
    return {
        "scenario": name,
        "title": scenario.title,
        "mode": report["mode"]["mode"],
        "ran": run,
        "findings": {
            each["capability"]: each["verdict"]
            for each in report["findings"]
            if each["verdict"] != "present"
        },
        "complaints": complaints(scenario, report, run),
    }


def _for_this_kernel(scenario: Scenario) -> Scenario:
    version = running_facts().upstream.version
    if scenario.before is None or (version is not None and version < scenario.before):
        return scenario
    return scenario.otherwise or replace(scenario, expected={}, mode="enhanced", refusal="")


def _in_child(work: Callable[[], Any]) -> Any:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(work(), pipe)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the console is where anybody will look
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if not told:
        raise ChildProcessError(f"ended with {os.waitstatus_to_exitcode(status)}")
    return pickle.loads(told)  # noqa: S301 - of our own child


def _report(before: Callable[[], None], *, battery: bool) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        before()
        found = probe(objects=objects_dir(), quick=not battery, cache=False)
        told: dict[str, Any] = found.to_json()
        return told

    found: dict[str, Any] = _in_child(work)
    return found


def _run(before: Callable[[], None]) -> dict[str, Any]:
    """What `kmesh run` came to: the mode with who answered, or the refusal."""
    node.prepare()
    daemon = node.Daemon(before=before)
    status = daemon.wait_ready()
    if isinstance(status, node.Ended):
        return {"mode": "none", "status": status.status, "log": status.log}
    try:
        answers = daemon.answers(_REQUESTS)
    finally:
        ended = daemon.end()
    return {
        "mode": status["mode"],
        "beside": {name: status[name] for name in ("telemetry", "acceleration") if name in status},
        "answers": dict(answers),
        "status": ended.status,
        "left": node.leftovers(),
        "log": ended.log if ended.status else "",
    }
