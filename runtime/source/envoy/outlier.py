# SPDX-License-Identifier: Apache-2.0
"""Circuit breakers and outlier detection of a cluster, with Envoy's defaults."""

from __future__ import annotations

from typing import Any

from runtime.model.http import CircuitBreakers, OutlierDetection
from runtime.source.envoy.whitelist import Fields, milliseconds

_DEFAULT, _UNBOUNDED = 0, 2**32 - 1
_BOUNDS = {
    "max_connections": 1024,
    "max_pending_requests": 1024,
    "max_requests": 1024,
    "max_retries": 3,
}
# count → (its default, which share of its ejections is enforced, and the default of that)
_COUNTS = {
    "consecutive_5xx": (5, "enforcing_consecutive_5xx", 100),
    "consecutive_gateway_failure": (5, "enforcing_consecutive_gateway_failure", 0),
    "consecutive_local_origin_failure": (5, "enforcing_consecutive_local_origin_failure", 100),
}


def decode_breakers(wire: Any, beyond: list[str]) -> CircuitBreakers:
    """The bounds for requests of default priority: those of high priority are told by their routes."""
    bounds: dict[str, int] = dict(_BOUNDS)
    if wire is not None:
        fields = Fields(wire, "circuit_breakers.")
        for threshold in fields.take("thresholds"):
            part = Fields(threshold, "circuit_breakers.thresholds.")
            if part.take("priority") != _DEFAULT:
                continue
            for name, default in _BOUNDS.items():
                bounds[name] = part.wrapped(name, default)
            # The path retries nothing; the rest is statistics and an inner bound of Envoy's.
            part.ignore("retry_budget", "track_remaining", "max_connection_pools")
            beyond += part.rest()
        beyond += fields.rest()
    given = {name: None if value >= _UNBOUNDED else value for name, value in bounds.items()}
    return CircuitBreakers(**given)


def decode_outlier(wire: Any, beyond: list[str]) -> OutlierDetection | None:
    """When an endpoint is left out for a while."""
    if wire is None:
        return None
    fields = Fields(wire, "outlier_detection.")
    counts = {name: _count(fields, name, beyond) for name in _COUNTS}
    split = fields.take("split_external_local_origin_errors")
    base = _time(fields, "base_ejection_time", 30_000)
    made = OutlierDetection(
        consecutive_5xx=counts["consecutive_5xx"],
        consecutive_gateway_failures=counts["consecutive_gateway_failure"],
        consecutive_local_failures=counts["consecutive_local_origin_failure"] if split else 0,
        interval_ms=_time(fields, "interval", 10_000),
        base_ejection_ms=base,
        max_ejection_ms=_time(fields, "max_ejection_time", max(300_000, base)),
        max_ejection_percent=min(fields.wrapped("max_ejection_percent", 10), 100),
        split_local_failures=split,
        always_one=fields.wrapped("always_eject_one_host", default=False),
    )
    _rates(fields, beyond, split=split)
    beyond += fields.rest()
    return made


def _count(fields: Fields, name: str, beyond: list[str]) -> int:
    default, enforcing, enforced = _COUNTS[name]
    value: int = fields.wrapped(name, default)
    share = fields.wrapped(enforcing, enforced)
    if 0 < share < 100:
        beyond.append(f"outlier_detection.{enforcing}: {share} %")
    return value if share else 0


def _rates(fields: Fields, beyond: list[str], *, split: bool) -> None:
    """Ejection by rates, over all endpoints of a cluster; Envoy has the first on by default."""
    rates = {"enforcing_success_rate": 100, "enforcing_failure_percentage": 0}
    local = {
        "enforcing_local_origin_success_rate": 100,
        "enforcing_failure_percentage_local_origin": 0,
    }
    for name, default in (rates | local).items():
        share = fields.wrapped(name, default)
        if share and (split or name in rates):
            beyond.append(f"outlier_detection.{name}: {share} %")
    fields.ignore(
        "success_rate_minimum_hosts",
        "success_rate_request_volume",
        "success_rate_stdev_factor",
        "failure_percentage_threshold",
        "failure_percentage_minimum_hosts",
        "failure_percentage_request_volume",
    )
    jitter = fields.take("max_ejection_time_jitter")
    if jitter is not None and milliseconds(jitter):
        beyond.append(f"outlier_detection.max_ejection_time_jitter: {milliseconds(jitter)} ms")


def _time(fields: Fields, name: str, default: int) -> int:
    value = fields.take(name)
    return default if value is None else milliseconds(value)
