# SPDX-License-Identifier: Apache-2.0
"""Recorded responses of Istiod in a directory mean what they meant on the stream."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.control.view import View
from runtime.source.directory import Directory
from runtime.source.envoy.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from runtime.source.files import FilesSource, Resources, State
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryResponse
from runtime.source.recorded import parse_recording
from tests.source.envoy.wire import DATA, recorded
from tests.source.istiod.ads_server import CDS, RDS

REVIEWS = "bookstore/reviews.bookstore.svc.cluster.local"


class Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = Directory(path)
        self.state = State()
        self.view = View()

    def poll(self) -> View:
        self.view.take(self.state.take(self.directory.scan()))
        return self.view


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A directory with all that was recorded."""
    for file in DATA.glob("*.pb"):
        shutil.copy(file, tmp_path / file.name)
    return Reader(tmp_path)


def test_all_that_was_recorded_is_there(reader):
    view = reader.poll()
    assert view.rejected == {}
    assert view.http is not None
    assert view.http.known
    assert view.http.clusters == recorded(CLUSTER)
    assert view.http.endpoints == recorded(ENDPOINTS)
    assert view.http.listeners == recorded(LISTENER)
    assert view.http.tables == recorded(ROUTES)
    assert REVIEWS in view.services
    assert len(view.services) + len(view.workloads) == 19
    assert set(view.policies) == {"bookstore/reviews-l7", "bookstore/orders-l4"}
    origins = reader.state.origins(reader.path)
    assert origins["route table 9080"] == f"{reader.path}/ads-RouteConfiguration.pb"
    assert origins[REVIEWS] == f"{reader.path}/delta-Address.pb"


def test_a_file_that_goes_takes_what_it_told_along(reader):
    reader.poll()
    (reader.path / "ads-RouteConfiguration.pb").unlink()
    (reader.path / "delta-Authorization.pb").unlink()
    (reader.path / "delta-Address.pb").unlink()
    view = reader.poll()
    assert view.http is not None
    assert view.http.tables == {}
    assert len(view.http.clusters) == 16
    assert (view.services, view.workloads, view.policies) == ({}, {}, {})


MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: bookstore}
spec: {clusterIP: 10.99.0.1, ports: [{port: 80}]}
"""


def test_a_manifest_decides_over_a_recording_as_long_as_it_is_there(reader):
    addresses = [str(each.address) for each in reader.poll().services[REVIEWS].addresses]
    (reader.path / "reviews.yaml").write_text(MANIFEST)
    view = reader.poll()
    assert [str(each.address) for each in view.services[REVIEWS].addresses] == ["10.99.0.1"]
    (reader.path / "reviews.yaml").unlink()
    view = reader.poll()
    assert [str(each.address) for each in view.services[REVIEWS].addresses] == addresses


def test_a_bad_resource_costs_itself_alone(reader):
    response = DiscoveryResponse.FromString((DATA / "ads-RouteConfiguration.pb").read_bytes())
    reader.poll()
    response.resources[1].value = b"\x0a\x0280\x12\x00"  # a virtual host without a domain
    (reader.path / "ads-RouteConfiguration.pb").write_bytes(response.SerializeToString())
    view = reader.poll()
    (where,) = view.rejected
    assert where == "ads-RouteConfiguration.pb resource 2 (80)"
    assert view.http is not None
    assert view.http.tables == recorded(ROUTES)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "tells no type"),
        (b"\xff\xff", "not a message"),
        (DiscoveryResponse(type_url="acme").SerializeToString(), ""),
    ],
)
def test_a_file_that_is_none_is_refused(payload, why):
    parsed = parse_recording(payload, file="x.pb")
    assert parsed.manifests == {}
    assert [each for each in parsed.rejected.values() if why in each] == (
        list(parsed.rejected.values())
    )
    assert bool(parsed.rejected) == bool(why)


def test_a_resource_that_comes_twice_counts_once():
    response = DiscoveryResponse(type_url=CDS)
    for _ in range(2):
        response.resources.add(type_url=CDS, value=b"\x0a\x01c")
    parsed = parse_recording(response.SerializeToString(), file="x.pb")
    assert set(parsed.manifests) == {("clusters", "", "c")}
    assert list(parsed.rejected) == ["x.pb resource 2 (c)"]
    assert CDS != RDS


RAW = [file.read_bytes() for file in sorted(DATA.glob("*.pb"))]


@given(
    st.sampled_from(RAW),
    st.lists(st.tuples(st.integers(0, 30_000), st.binary(max_size=3)), max_size=4),
)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
def test_any_bytes_are_read_or_refused(payload, edits):
    data = bytearray(payload)
    for where, new in edits:
        at = where % len(data)
        data[at : at + len(new)] = new
    parsed = parse_recording(bytes(data), file="x.pb")
    assert parsed.manifests or parsed.rejected or not parsed.whole or not data
    assert not any("\n" in why for why in parsed.rejected.values())


def test_the_bytes_of_what_is_in_force_are_at_hand(reader: Reader) -> None:
    assert reader.state.resources() == {}
    reader.poll()
    found = reader.state.resources()
    file = reader.path / "ads-RouteConfiguration.pb"
    response = DiscoveryResponse.FromString(file.read_bytes())
    sent = {each.value for each in response.resources}
    assert set(found[RDS].values()) == sent
    file.write_bytes(file.read_bytes()[:-10])
    reader.poll()
    assert set(reader.state.resources()[RDS].values()) == sent  # the last that was good
    file.unlink()
    reader.poll()
    assert reader.state.resources() == {**found, RDS: {}}


async def test_who_follows_them_is_told_of_what_there_is_and_of_changes(tmp_path: Path) -> None:
    for file in DATA.glob("*.pb"):
        shutil.copy(file, tmp_path)
    source = FilesSource(tmp_path)
    told: list[Resources] = []
    source.follow_resources(told.append)
    updates: Any = source.updates()
    try:
        await anext(updates)
        assert len(told) == 1
        source.follow_resources(told.append)  # who comes late is told as well
        assert told[0] == told[1]
        (tmp_path / "ads-RouteConfiguration.pb").unlink()
        await anext(updates)
        assert told[-1] == {**told[0], RDS: {}}
    finally:
        await updates.aclose()
