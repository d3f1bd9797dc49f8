# SPDX-License-Identifier: Apache-2.0
"""How long the gate waits for a connection to an endpoint: as the cluster says."""

from __future__ import annotations

import json
import select
from ipaddress import ip_address

import pytest

from runtime.control.http import HttpControl
from runtime.control.view import View
from runtime.model.http import CircuitBreakers, HttpEndpoint
from runtime.plan.ability import ability
from runtime.source.update import Update
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, Agent
from tests.plan.http_model import picture, route

pytestmark = pytest.mark.root
NOBODY = "10.244.7.1"  # what is sent there vanishes
DEFAULT_VIP = "10.96.0.2"


def begin(agent: Agent, *command: object) -> None:
    assert agent.process.stdin
    name, *arguments = command
    agent.process.stdin.write(json.dumps({"do": name, "with": arguments}) + "\n")
    agent.process.stdin.flush()


@pytest.fixture(scope="module", autouse=True)
def _nobody(shared_stage: Stage) -> None:
    shared_stage.world.swallow(NOBODY)


@pytest.mark.parametrize("breakers", [CircuitBreakers(), CircuitBreakers(max_requests=9)])
def test_a_dial_ends_when_its_cluster_says(stage: Stage, breakers: CircuitBreakers) -> None:
    """One cluster says half a second, the other nothing, so five; both dial three times."""
    about = {"breakers": breakers, "connect_timeout_ms": 500, "panic_percent": 0}
    nobody = HttpEndpoint(address=ip_address(NOBODY), port=80)
    http = picture(route(), port={"address": ip_address(VIP4)}, cluster=about, endpoints=(nobody,))
    control = HttpControl(stage.ports, ability=ability())
    assert control.program(Update(complete=True), View(http=http)) == {}
    stage.ports.set_cluster("default", [Target(NOBODY, 80)])
    stage.route(table(to("/", "default")), DEFAULT_VIP)
    patient = stage.agent(stage.cgroup)
    number = patient("connect", DEFAULT_VIP, PORT)
    begin(patient, "ask", number, "/x")
    assert stage.ask(["/x"]) == [503]
    assert patient.process.stdout
    assert not select.select([patient.process.stdout], [], [], 0)[0], "both have waited as long"
