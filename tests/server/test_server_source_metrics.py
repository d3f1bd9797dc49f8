# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the mesh, as metrics: by name, and never without bound."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime.server.source_metrics import MOST_NAMED, SourceCollector
from runtime.source.istiod.status import AdsStatus, IstiodStatus


def told(**sync: Any) -> dict[tuple[str, str], float]:
    """Every sample, by name and resource, from the text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    whole = {"rejected": {}, "failed": {}, "details": {}} | sync
    registry.register(SourceCollector(lambda: whole))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, sample.labels.get("resource", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_resources_are_named_with_the_reason() -> None:
    odd = 'service a "b"\nc\\d'
    found = told(failed={"ns/a": "port 80 does not fit"}, rejected={odd: "not a message\n"})
    assert found["kmesh_failed_resource", "ns/a"] == 1
    assert found["kmesh_rejected_resource", odd] == 1
    assert found["kmesh_failed_resources_unnamed", ""] == 0


def test_a_broken_mesh_is_counted_beyond_a_bound() -> None:
    reasons = {f"ns/s{number:05}": "x" * 5000 for number in range(10_000)}
    found = told(failed=reasons)
    named = [resource for name, resource in found if name == "kmesh_failed_resource"]
    assert named == sorted(reasons)[:MOST_NAMED]
    assert found["kmesh_failed_resources_unnamed", ""] == 10_000 - MOST_NAMED
    assert found["kmesh_rejected_resources_unnamed", ""] == 0


def test_the_connection_to_istiod_is_told() -> None:
    status = IstiodStatus(
        connected=True, streams=3, failures=1, responses=7, acks=5, nacks=2, services=9,
        last_response=1700000000.5, unresolved={"db.example.com": "no such name"},
    )  # fmt: skip
    found = told(details=status.to_json() | {"http": None})
    expected = {
        "connected": 1, "synced": 0, "services": 9, "streams_total": 3, "failures_total": 1,
        "responses_total": 7, "acks_total": 5, "nacks_total": 2, "unresolved": 1,
        "last_response_timestamp_seconds": 1700000000.5,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[f"kmesh_istiod_{name}", ""] == value
    assert not any("istiod_ads" in name for name, _ in found)
    with_http = told(details=status.to_json() | {"http": AdsStatus(nacks=4).to_json()})
    assert with_http["kmesh_istiod_ads_nacks_total", ""] == 4
    assert with_http["kmesh_istiod_nacks_total", ""] == 2


def test_a_source_that_is_not_istiod_has_no_such_series() -> None:
    assert not any("istiod" in name for name, _ in told())
