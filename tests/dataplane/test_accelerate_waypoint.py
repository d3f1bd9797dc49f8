# SPDX-License-Identifier: Apache-2.0
"""A connection to a waypoint of this node introduces itself, whichever program comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.kernel.accelerate import Accelerator
from runtime.kernel.datapath import DataPath
from runtime.tables.place import Place
from runtime.tables.services import ServiceTables
from tests.dataplane.accelerate_stage import Stage, accepted, connected, exactly, listening
from tests.dataplane.fixtures import cgroup, datapath, pins
from tests.dataplane.test_dataplane_waypoint import PORT, SIGNATURE, instances, publish
from tests.dataplane.world import VIP4

__all__ = ["cgroup", "datapath", "pins"]
pytestmark = pytest.mark.root


def _meet_the_waypoint() -> tuple[bytes, bytes, bytes]:
    with listening(port=PORT) as listener:
        client = connected(VIP4, 80)
        waypoint = accepted(listener)
    client.sendall(b"a request")
    head = exactly(waypoint, 16)
    exactly(waypoint, int.from_bytes(head[14:16], "big"))
    request = exactly(waypoint, 9)
    waypoint.sendall(b"the answer")
    return head[:12], request, exactly(client, 10)


@pytest.mark.parametrize("first", ["acceleration", "waypoint"])
def test_what_goes_to_a_waypoint_is_not_short_cut(
    objects: Path, pins: Path, cgroup: Path, datapath: DataPath, first: str
) -> None:
    publish(datapath, ServiceTables(place=Place(node="n1")), *instances("127.0.0.1"))
    accelerator = Accelerator.open(objects, pins=pins)
    try:
        both = [accelerator.enroll_cgroup, datapath.enroll_cgroup]
        for enroll in both if first == "acceleration" else reversed(both):
            enroll(cgroup)
        seen = Stage(objects, pins, cgroup, accelerator).run(_meet_the_waypoint)
        assert seen == (SIGNATURE, b"a request", b"the answer")
        assert accelerator.counters().paired == 0
    finally:
        accelerator.destroy()
