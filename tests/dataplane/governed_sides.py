# SPDX-License-Identifier: Apache-2.0
"""The gate and a real Envoy, asked in the same way, with clusters of the same configuration."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from google.protobuf import json_format

from runtime.model.http import Balancer
from runtime.source.envoy.cluster import decode_cluster
from runtime.source.envoy.messages import CLUSTER, message_class
from runtime.tables.http_govern import govern
from runtime.tables.http_ports import Target
from tests.dataplane import http_backend
from tests.dataplane.enhanced_stage import PORT, Stage, table, to
from tests.dataplane.world import VIP4, Agent, wait_for
from tests.plan.envoy_oracle import Envoy, envoy

Json = dict[str, Any]
_BODIES = {
    "no healthy upstream": "nobody",
    "upstream connect error or disconnect/reset before headers. reset reason: overflow": "overflow",
}
_WORDS = {hashlib.sha256(text.encode()).hexdigest()[:16]: word for text, word in _BODIES.items()}


BACKEND = Path(__file__).with_name("governed_backend.py")


def cluster(
    name: str,
    ports: Sequence[int | Mapping[str, Any]],
    *,
    breakers: Mapping[str, int] | None = None,
    outlier: Mapping[str, Any] | None = None,
    panic: int = 0,
    weighted: bool = False,
    **extra: Any,
) -> Json:
    """A cluster's resource.

    Args:
        ports: of endpoints on loopback; with more to say of one, a group of `endpoints`.
        breakers: bounds; what is not named has none.
        outlier: of `outlier_detection`; nothing is ejected by rates.
        panic: percent.
        weighted: localities have weights.
    """
    unbounded = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), 2**32 - 1
    )
    groups = [one if isinstance(one, Mapping) else group(one) for one in ports]
    common: Json = {"healthy_panic_threshold": {"value": panic}}
    if weighted:
        common["locality_weighted_lb_config"] = {}
    made: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [unbounded | dict(breakers or {})]},
        "common_lb_config": common,
        "load_assignment": {"cluster_name": name, "endpoints": groups},
    }
    if outlier is not None:
        made["outlier_detection"] = {"enforcing_success_rate": 0, "interval": "0.5s", **outlier}
    return made | extra


def group(*ports: int, sick: Sequence[int] = (), **extra: Any) -> Json:
    """Endpoints of one priority and locality; of those that are sick the source says so."""
    return {
        "lb_endpoints": [
            {
                "endpoint": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": one}}
                },
                "health_status": "UNHEALTHY" if one in sick else "HEALTHY",
            }
            for one in ports
        ],
        **extra,
    }


class Backend:
    """Servers of one cluster, in a process that several share (governed_backend.py)."""

    def __init__(self, agent: Agent, name: str) -> None:
        self._agent, self._name = agent, name

    @property
    def name(self) -> str:
        return self._name

    def start(self, server: str) -> int:
        return int(self._agent("start", f"{self._name} {server}"))

    def stop(self, server: str) -> None:
        self._agent("stop", f"{self._name} {server}")

    def release(self, key: str) -> None:
        self._agent("release", f"{self._name} {key}".replace(" ", "."))

    def key(self, key: str) -> str:
        """What stands for a key in a target."""
        return f"{self._name} {key}".replace(" ", ".")

    def counts(self) -> Mapping[str, int]:
        found: Mapping[str, int] = self._agent("counts", f"{self._name} ")
        return found

    @property
    def accepted(self) -> int:
        """Connections."""
        return self.counts()["accepted"]

    def served(self) -> Mapping[str, int]:
        """Requests by server."""
        found = self.counts().items()
        return {name.split()[-1]: n for name, n in found if name.startswith("served ")}


class Side(Protocol):
    """Who routes: connections by number, answers as words."""

    def connect(self) -> int: ...
    def send(self, number: int, target: str) -> None: ...
    def read(self, number: int) -> str: ...
    def leave(self, number: int) -> None: ...
    def seen(self) -> Mapping[str, int]: ...


def ask(side: Side, *targets: str) -> list[str]:
    """Requests one after the other, on one connection."""
    number = side.connect()
    answers = []
    for target in targets:
        side.send(number, target)
        answers.append(side.read(number))
    side.leave(number)
    return answers


def until(side: Side, what: str, count: int) -> None:
    """Wait until so many are seen."""
    wait_for(lambda: side.seen()[what] == count, f"{what} {count}: {side.seen()}", seconds=60)


def _request(target: str) -> str:
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"


class OfGate:
    """A client of the stage's; what is seen is from now on."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before: Mapping[str, int] = {}
        self._before = self.seen()

    def connect(self) -> int:
        return int(self._stage.client("connect", VIP4, PORT))

    def send(self, number: int, target: str) -> None:
        self._stage.client("send", number, _request(target))

    def read(self, number: int) -> str:
        status, _, _, digest, _ = self._stage.client("read", number)
        return _WORDS.get(digest, str(status))

    def leave(self, number: int) -> None:
        self._stage.client("abort", number)

    def seen(self) -> Mapping[str, int]:
        stats, status = self._stage.ports.stats, self._stage.status()
        found = {f"ejected {name}": count for name, count in stats.ejections().items()}
        overflows = stats.overflows()
        found["refused"] = overflows["pending"] + overflows["requests"]
        found["waited"] = overflows["connections"]
        found["pending"], found["out"] = status["pending"], status["ejected"]
        return {name: count - self._before.get(name, 0) for name, count in found.items()}


class OfEnvoy:
    """Clients of an Envoy; what is seen is of one cluster."""

    _NAMES: Mapping[str, str] = {
        "upstream_rq_pending_overflow": "refused",
        "upstream_rq_active_overflow": "refused",
        "upstream_cx_overflow": "waited",
        "upstream_rq_pending_active": "pending",
        "outlier_detection.ejections_active": "out",
        "outlier_detection.ejections_overflow": "ejected refused",
        "outlier_detection.ejections_enforced_consecutive_5xx": "ejected 5xx",
        "outlier_detection.ejections_enforced_consecutive_gateway_failure": "ejected gateway",
        "outlier_detection.ejections_enforced_consecutive_local_origin_failure": "ejected local",
    }

    def __init__(self, running: Envoy, name: str) -> None:
        self._running, self._name = running, name
        self._clients: list[socket.socket] = []

    def connect(self) -> int:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(60)
        made.connect(str(self._running.address))
        self._clients.append(made)
        return len(self._clients) - 1

    def send(self, number: int, target: str) -> None:
        self._clients[number].sendall(_request(target).encode())

    def read(self, number: int) -> str:
        with self._clients[number].makefile("rb", buffering=0) as stream:
            head = http_backend.read_head(stream)  # type: ignore[arg-type]
            assert head
            body = b""
            while len(body) < int(head[1].get("content-length", "0")):
                body += stream.read(4096) or b""
        status = head[0].split(" ")[1]
        return _WORDS.get(hashlib.sha256(body).hexdigest()[:16], status)

    def leave(self, number: int) -> None:
        self._clients[number].close()

    def seen(self) -> Mapping[str, int]:
        found = dict.fromkeys(self._NAMES.values(), 0)
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(60)
            sock.connect(str(self._running.address.with_name("admin")))
            path = f"/stats?format=json&filter=^cluster\\.{self._name}\\."
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            with sock.makefile("rb") as stream:
                head = http_backend.read_head(stream)
                assert head
                raw = http_backend.read_body(stream, head[1])
        for one in json.loads(raw)["stats"]:
            short = one.get("name", "").removeprefix(f"cluster.{self._name}.")
            if short in self._NAMES:
                found[self._NAMES[short]] += one["value"]
        return found


def install(stage: Stage, resources: Sequence[Json], *, by_gate: bool = True) -> None:
    """Have the stage route `/name/` to each cluster, decoded and planned as a daemon does.

    Args:
        by_gate: their endpoints are the gate's to choose; else the kernel's.
    """
    for one in resources:
        wire = json_format.ParseDict(one, message_class(CLUSTER)())
        made = decode_cluster(one["name"], wire)
        assert made.own_endpoints
        assert not made.beyond
        governed = govern(made, made.own_endpoints)
        assert (governed is not None) == by_gate
        targets = [
            Target(each.address, each.port, each.weight) for each in made.own_endpoints.endpoints
        ]
        hashes = made.balancer is Balancer.MAGLEV
        stage.ports.set_cluster(
            one["name"], targets, balancer=made.balancer, hashes=hashes, governed=governed
        )
    stage.route(table(*(to(f"/{one['name']}/", one["name"]) for one in resources)))


def _routes(names: Sequence[str]) -> Callable[[object], Json]:
    def make(_table: object) -> Json:
        # As Istiod has it on every route.
        retry = {"retry_on": "connect-failure", "num_retries": 2, "retry_host_predicate": [
            {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
            "host_selection_retry_max_attempts": 5, "retry_back_off": {"base_interval": "0.001s"}}  # fmt: skip
        routes = [{"match": {"prefix": f"/{name}/"}, "route": {
            "cluster": name, "timeout": "0s", "retry_policy": retry}} for name in names]  # fmt: skip
        return {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "name": "routes", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}  # fmt: skip

    return make


@contextmanager
def envoy_of(
    program: Path, directory: Path, stage: Stage, resources: Sequence[Json]
) -> Iterator[Envoy]:
    """An Envoy in the stage's namespace that routes in the same way."""
    make = _routes([one["name"] for one in resources])
    # Else it gathers changes of its endpoints' health for a second.
    at_once = {"update_merge_window": "0s"}
    resources = [one | {"common_lb_config": one["common_lb_config"] | at_once} for one in resources]
    with envoy(program, directory, prefix=stage.inside(), make=make, clusters=resources) as running:
        running.load(table())
        yield running


Both = Callable[[str], tuple[tuple[Side, Backend], tuple[Side, Backend]]]


@contextmanager
def both_sides(
    stage: Stage,
    program: Path,
    directory: Path,
    names: Iterable[str],
    resource: Callable[[str, Backend], Json],
    *,
    by_gate: bool = True,
) -> Iterator[Both]:
    """The gate and an Envoy, which know the same clusters, each with endpoints of its own.

    Args:
        stage: made anew for them.
        program: Envoy's.
        directory: for Envoy's files.
        names: of the clusters.
        resource: starts the endpoints of a cluster and describes it.
        by_gate: as `install` has it.

    Yields:
        what gives both for a cluster, the gate first.
    """
    stage.renew()
    agent = stage.world.agent(script=BACKEND)
    resources: dict[str, list[Json]] = {"ours": [], "theirs": []}
    for name in names:
        for side, made in resources.items():
            made.append(resource(name, Backend(agent, f"{side} {name}")))
    install(stage, resources["ours"], by_gate=by_gate)
    with envoy_of(program, directory, stage, resources["theirs"]) as running:
        yield lambda name: (
            (OfGate(stage), Backend(agent, f"ours {name}")),
            (OfEnvoy(running, name), Backend(agent, f"theirs {name}")),
        )
