# SPDX-License-Identifier: Apache-2.0
"""What the kernel answers by itself is what a real Envoy answers: random tables, requests on kept connections."""

from __future__ import annotations

import pytest
from hypothesis import given

from runtime.model.http import RouteTable
from tests.dataplane.answer_worlds import answering, port
from tests.dataplane.enhanced_stage import PORT, Stage
from tests.dataplane.test_enhanced_answers import (  # noqa: F401 - a fixture
    Told,
    of_envoy,
    oracle,
    quick,
    seeds_of,
    told,
)
from tests.dataplane.world import VIP4
from tests.plan.envoy_oracle import Envoy
from tests.plan.http_worlds import Maker, wire

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared_stage(short_cut_stage: Stage) -> Stage:
    return short_cut_stage


@pytest.fixture
def served(stage: Stage) -> Stage:
    stage.serve("a")
    return stage


class _Kept:
    """A client's connection, and another when the gate has ended it."""

    def __init__(self, stage: Stage) -> None:
        self._client = stage.client
        self._number: int | None = None

    def ask(self, request: bytes) -> bytes:
        if self._number is None:
            self._number = int(self._client("connect", VIP4, PORT))
        self._client("send", self._number, request.decode("latin-1"))
        method = request.partition(b" ")[0].decode()
        raw: bytes = self._client("raw", self._number, method).encode("latin-1")
        if b"\r\nconnection: close\r\n" in raw:
            self.close()
        return raw

    def close(self) -> None:
        if self._number is not None:
            self._client("close", self._number)
        self._number = None


ANSWERED: list[int] = []


@quick
@given(routes=answering(governed=True), seeds=seeds_of)
def test_the_kernel_answers_as_envoy_does(
    oracle: Envoy,  # noqa: F811 - the fixture
    served: Stage,
    routes: RouteTable,
    seeds: list[int],
) -> None:
    oracle.load(routes)
    served.ports.set_port(VIP4, PORT, routes, governs=port())
    before = served.path.gate_counters()["answered"]
    maker, kept = Maker(routes), _Kept(served)
    for seed in seeds:
        request = maker.request(seed)
        if any(name.lower() == "connection" for name, _ in request.headers):
            continue
        head = wire(request)
        raw = kept.ask(head)
        if b"x-kmesh-reason: it takes a waypoint" in raw:
            continue
        ours, theirs = told(raw), of_envoy(oracle, head)
        if _was_forwarded(ours, theirs):
            continue
        assert ours == theirs, head
    kept.close()
    ANSWERED.append(served.path.gate_counters()["answered"] - before)


def _was_forwarded(ours: Told, theirs: Told) -> bool:
    """Here to an endpoint; Envoy says that it would be."""
    return (theirs[0], theirs[1], theirs[3], ours[0]) == (200, None, b"", 200)


def test_many_of_them_were_the_kernels() -> None:
    assert sum(ANSWERED) > 10 * len(ANSWERED)
