# SPDX-License-Identifier: Apache-2.0
"""What the enhanced path is more than the compat path, put together; and a change from one to the other.

Nothing of HTTP is imported before a path serves that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from runtime import log
from runtime.control.controller import Routes
from runtime.errors import KmeshError
from runtime.kernel.datapath import DataPath
from runtime.kernel.netns import netns_cookie
from runtime.kernel.other_path import other_paths
from runtime.launch.gate import GatePlace
from runtime.launch.http import Http
from runtime.launch.http import clear as clear_gate
from runtime.launch.http_seen import HttpSeen
from runtime.launch.managed import Managed
from runtime.objects.locate import program

HTTP_PATH = "enhanced"  # the path that routes HTTP in the kernel

_log = log.get("launch")


def start_gate(
    path: DataPath,
    *,
    objects: Path,
    run_dir: Path,
    namespaces: Callable[[], Iterable[Path]],
) -> Http:
    """Start the gate of a path; without it no request reaches a service that has routes.

    Args:
        path: the data path, open; it is given up where the gate does not start.
        objects: the compiled objects.
        run_dir: the daemon's run directory.
        namespaces: tells where managed processes are now.

    Raises:
        KmeshError: it does not start.
    """
    try:
        http = Http(
            path,
            place=GatePlace.at(run_dir, program("kmesh-gate")),
            cookie_of=partial(netns_cookie, objects=objects),
            namespaces=namespaces,
        )
        http.start()
    except BaseException:
        if path.was_serving:
            path.close()
        else:
            path.destroy()
        raise
    return http


def routes_of(
    path: DataPath, *, gate: Path, seen: HttpSeen, has_waypoint: Callable[[], bool], nameless: str
) -> Routes:
    """What brings routes into a path, and tells of them from now on.

    Args:
        path: the enhanced one.
        gate: the gate's control socket.
        seen: is told where the counters are.
        has_waypoint: tells whether this node has a waypoint.
        nameless: why it is not known who the workloads of this node are; "" where it is.
    """
    from runtime.control.http import HttpControl
    from runtime.kernel.http_ports import HttpPorts
    from runtime.plan.ability import ability

    ports = HttpPorts(path.maps)
    control = HttpControl(ports, ability=ability(nameless=nameless), has_waypoint=has_waypoint)
    seen.attach(
        ports.stats,
        passed=path.gate_counters,
        gate=gate,
        ruling_of=ports.ruling_of,
        standings=lambda: control.standings,
    )
    return control


def retire_others(name: str, managed: Managed, *, pins: Path, run_dir: Path) -> None:
    """Remove what an earlier daemon ran in another mode, now that its work is done by this one.

    Args:
        name: the path that runs now.
        managed: takes over whom the other managed.
        pins: where both are pinned.
        run_dir: the daemon's run directory.
    """
    for other in other_paths(pins, name):
        _log.warning("the mode has changed: removing the %s path of before", other.name)
        try:
            for cgroup in other.cgroups():
                managed.enroll(str(cgroup))
            for cookie in other.namespaces():
                managed.enroll(netns=str(cookie))
            other.remove()
            if other.name == HTTP_PATH:
                clear_gate(run_dir)
        except (KmeshError, OSError) as error:
            _log.error("the %s path of before is not all removed: %s", other.name, error)
