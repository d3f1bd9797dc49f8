# SPDX-License-Identifier: Apache-2.0
"""10,000 services with 10 endpoints each: what they take, and what one change more takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]

SERVICES, ENDPOINTS = 10_000, 10
MEMORY_MB = 400

SCRIPT = f"""
import json, sys
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from runtime.kernel.datapath import DataPath
from runtime.model.mesh import NetworkAddress, Service, ServicePort, Workload
from runtime.source.update import Update
from runtime.tables.services import ServiceTables

PORTS = (ServicePort(service_port=80, target_port=8080),)

def service(n):
    host = f"s{{n}}.ns.svc.cluster.local"
    address = NetworkAddress(IPv4Address(0x0A600000 + n))
    return Service(name=f"s{{n}}", namespace="ns", hostname=host, addresses=(address,), ports=PORTS)

def workload(n):
    key = f"ns/s{{n // {ENDPOINTS}}}.ns.svc.cluster.local"
    return Workload(uid=f"Kubernetes//Pod/ns/w{{n}}", name=f"w{{n}}", namespace="ns",
                    addresses=(IPv4Address(0x0AF40000 + n),), services={{key: PORTS}})

def whole():
    return Update(services=tuple(map(service, range({SERVICES}))),
                  workloads=tuple(map(workload, range({SERVICES * ENDPOINTS}))), complete=True)

path = DataPath.open(Path(sys.argv[1]), pins=Path(sys.argv[2]))
tables = ServiceTables(existing=path.contents())
path.apply(tables.apply(whole()))
# Not ru_maxrss, which begins with what the process had that started this one.
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
moved = tables.apply(Update(workloads=(replace(workload(5), addresses=(IPv4Address("10.1.1.1"),)),)))
path.apply(moved)
gone = tables.apply(Update(removed_workloads=(workload(77).uid,)))
path.apply(gone)
contents = path.contents()
maps = sum(
    int(line.split()[1])
    for name in ("frontends", "clusters", "slots")
    for line in Path(f"/proc/self/fdinfo/{{path._map(name).fd}}").read_text().splitlines()
    if line.startswith("memlock")
)
path.destroy()
print(json.dumps({{
    "problems": len(tables.problems), "peak": peak, "maps": maps // 1_000_000,
    "moved": len(moved), "gone": len(gone), "frontends": len(contents.frontends),
    "clusters": len(contents.clusters), "slots": len(contents.slots),
}}))
"""


def test_a_large_mesh_fits_and_a_change_stays_small(
    objects: Path, pins: Path, checkout: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(objects), str(pins)],
        cwd=checkout, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    assert found["problems"] == 0
    assert found["frontends"] == found["clusters"] == SERVICES
    assert found["slots"] == SERVICES * ENDPOINTS - 1
    assert (found["moved"], found["gone"]) == (1, 3)
    assert found["peak"] < MEMORY_MB
    # Before 5.11 the kernel tells what a map could take at most, not what it takes.
    if (major, minor) >= (5, 11):
        assert found["maps"] < 100
