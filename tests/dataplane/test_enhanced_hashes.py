# SPDX-License-Identifier: Apache-2.0
"""Requests that are alike go to one endpoint, and what makes them alike is what a real Envoy goes by."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runtime.model.http import (
    Forward,
    HashKind,
    HashPolicy,
    PathKind,
    PathMatch,
    Route,
    RouteMatch,
    WeightedCluster,
)
from runtime.tables.http_ports import Target
from tests.dataplane.enhanced_stage import PORT, Stage, table
from tests.dataplane.world import VIP4
from tests.plan.envoy_oracle import envoy

pytestmark = pytest.mark.root
NAMES = [f"e{number}" for number in range(12)]
HEADER = HashPolicy(kind=HashKind.HEADER, name="x-user")
COOKIE = HashPolicy(kind=HashKind.COOKIE, name="id")
QUERY = HashPolicy(kind=HashKind.QUERY, name="q")
SOURCE = HashPolicy(kind=HashKind.SOURCE_IP)
METHOD = HashPolicy(kind=HashKind.HEADER, name=":method")
FIRST = HashPolicy(kind=HashKind.HEADER, name="x-user", terminal=True)


@pytest.fixture(scope="module")
def ports(shared_stage: Stage) -> dict[str, int]:
    shared_stage.renew()
    return {name: shared_stage.backend("serve", "127.0.0.1", name) for name in NAMES}


def hashing(stage: Stage, ports: dict[str, int], *policies: HashPolicy) -> None:
    stage.ports.set_cluster("h", [Target("127.0.0.1", one) for one in ports.values()], hashes=True)
    action = Forward((WeightedCluster("h"),), policies)
    stage.route(table(Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/")), action=action)))


def by_gate(stage: Stage, target: str, headers: str, method: str = "GET") -> str:
    number = stage.client("connect", VIP4, PORT)
    answer = stage.client("ask", number, target, {"headers": headers, "method": method})
    stage.client("close", number)
    assert answer[0] == 200, answer
    return str(answer[1])


# Each group of requests is alike; for which policies.
GROUPS: list[tuple[tuple[HashPolicy, ...], list[list[tuple[str, str]]]]] = [
    ((HEADER,), [[("/", f"x-user: u{n}\r\n"), (f"/{n}?a", f"X-User:  u{n}\r\nother: {n}\r\n")]
                 for n in range(12)]),
    ((HEADER,), [[("/", "x-user:\r\n"), ("/x", "x-user: \r\n")]]),
    ((COOKIE,), [[("/", f"cookie: id=u{n}\r\n"), ("/a", f"Cookie: a=b; id=u{n}; id=z\r\n"),
                  ("/b", f'cookie: x;id="u{n}";c=d\r\n')] for n in range(12)]),
    ((QUERY,), [[(f"/?q=u{n}", ""), (f"/x?a=b&q=u{n}", "x-user: a\r\n")] for n in range(12)]),
    ((FIRST, COOKIE), [[("/", f"x-user: u{n}\r\n"), ("/", f"x-user: u{n}\r\ncookie: id=u{n}\r\n")]
                       for n in range(12)]),
    ((FIRST, COOKIE), [[("/", f"cookie: id=c{n}\r\n"), ("/a?b", f"cookie: id=c{n}\r\n")] for n in range(12)]),
    ((HEADER, COOKIE), [[("/", f"x-user: a\r\ncookie: id=c{n}\r\n"), ("/", f"cookie: id=c{n}\r\nx-user: a\r\n")]
                        for n in range(12)]),
    ((HEADER, METHOD), [[("/", f"x-user: u{n}\r\n"), ("/a", f"x-user: u{n}\r\n")] for n in range(12)]),
]  # fmt: skip


def of_envoy(address: Path, target: str, headers: str) -> str:
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(30)
        sock.connect(str(address))
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode())
        raw = b""
        while b"\r\n\r\n" not in raw:
            more = sock.recv(65536)
            assert more
            raw += more
    return raw.partition(b"x-backend: ")[2].partition(b"\r\n")[0].decode()


def policy_wire(policy: HashPolicy) -> dict[str, Any]:
    match policy.kind:
        case HashKind.HEADER:
            part: dict[str, Any] = {"header": {"header_name": policy.name}}
        case HashKind.COOKIE:
            part = {"cookie": {"name": policy.name}}
        case HashKind.QUERY:
            part = {"query_parameter": {"name": policy.name}}
        case HashKind.SOURCE_IP:
            part = {"connection_properties": {"source_ip": True}}
    return part | {"terminal": policy.terminal}


def maglev(ports: dict[str, int]) -> dict[str, Any]:
    places = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": one}}}}
        for one in ports.values()
    ]
    return {"name": "h", "type": "STATIC", "lb_policy": "MAGLEV", "load_assignment": {
        "cluster_name": "h", "endpoints": [{"lb_endpoints": places}]}}  # fmt: skip


def test_what_makes_requests_alike_is_envoys(
    checkout: Path, tmp_path: Path, shared_stage: Stage, ports: dict[str, int]
) -> None:
    current: list[HashPolicy] = []

    def make(_table: object) -> dict[str, Any]:
        route = {"match": {"prefix": "/"}, "route": {
            "cluster": "h", "hash_policy": [policy_wire(one) for one in current]}}  # fmt: skip
        return {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "name": "routes", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]}  # fmt: skip

    program = checkout / ".venv/bin/envoy"
    with envoy(
        program, tmp_path, within=str(shared_stage.world.netns), make=make, clusters=[maglev(ports)]
    ) as running:
        for policies, groups in GROUPS:
            current[:] = policies
            running.load(table())
            hashing(shared_stage, ports, *policies)
            seen: Counter[str] = Counter()
            for group in groups:
                theirs = {of_envoy(running.address, *one) for one in group * 2}
                ours = {by_gate(shared_stage, *one) for one in group * 2}
                assert len(theirs) == 1, (policies, group)
                assert len(ours) == 1, (policies, group)
                seen.update(ours)
            assert len(groups) == 1 or len(seen) > 2


def test_a_source_address_is_one_key(shared_stage: Stage, ports: dict[str, int]) -> None:
    hashing(shared_stage, ports, SOURCE)
    assert len({by_gate(shared_stage, f"/{n}", "") for n in range(15)}) == 1


def test_without_a_key_any_endpoint_is_chosen(shared_stage: Stage, ports: dict[str, int]) -> None:
    hashing(shared_stage, ports, HEADER)
    assert len({by_gate(shared_stage, "/", "") for _ in range(40)}) > 3


def test_who_leaves_takes_only_its_own_keys(shared_stage: Stage, ports: dict[str, int]) -> None:
    hashing(shared_stage, ports, HEADER)
    users = [f"x-user: {number}\r\n" for number in range(60)]
    before = [by_gate(shared_stage, "/", one) for one in users]
    left = {name: port for name, port in ports.items() if name != before[0]}
    hashing(shared_stage, left, HEADER)
    after = [by_gate(shared_stage, "/", one) for one in users]
    pairs = list(zip(before, after, strict=True))
    assert all(one == other for one, other in pairs if one != before[0])
    assert all(other != before[0] for _, other in pairs)
    shared_stage.ports.set_cluster(
        "h", [Target("127.0.0.1", left[before[1]])] if before[1] in left else []
    )
    assert list(shared_stage.path.maps["http_rings"].keys()) == []
