# SPDX-License-Identifier: Apache-2.0
"""Faults that are injected on purpose: aborts can be made by the path, delays cannot."""

from __future__ import annotations

from typing import Any

from runtime.model.http import Abort
from runtime.source.envoy.match import decode_header
from runtime.source.envoy.share import fraction, percent
from runtime.source.envoy.whitelist import Fields, seconds

NEVER = Abort(status=503, numerator=0)


def decode_fault(wire: Any) -> tuple[Abort | None, list[str]]:
    """An `HTTPFault`: what it aborts, and what of it cannot be expressed."""
    fields = Fields(wire, "fault.")
    told: list[str] = []
    headers = [decode_header(each, "fault.headers", told) for each in fields.take("headers")]
    abort = _abort(fields.take("abort"), told)
    _delay(fields.take("delay"), told)
    # Names of runtime keys (there is no runtime that sets them), and statistics.
    fields.ignore(
        "delay_percent_runtime",
        "abort_percent_runtime",
        "delay_duration_runtime",
        "abort_http_status_runtime",
        "max_active_faults_runtime",
        "response_rate_limit_percent_runtime",
        "abort_grpc_status_runtime",
        "disable_downstream_cluster_stats",
        "filter_metadata",
    )
    told += fields.rest()
    if abort is None or None in headers:
        return None, told
    wanted = tuple(each for each in headers if each)
    return Abort(status=abort[0], numerator=abort[1], denominator=abort[2], headers=wanted), told


def _abort(wire: Any, told: list[str]) -> tuple[int, int, int] | None:
    if wire is None:
        return None
    fields = Fields(wire, "fault.abort.")
    share = fields.take("percentage")
    numerator, denominator = fraction(share) if share is not None else (0, 100)
    status = fields.take("http_status")
    told += fields.rest()
    if not numerator or not 200 <= status < 600:
        return None
    return status, numerator, denominator


def _delay(wire: Any, told: list[str]) -> None:
    if wire is None:
        return
    fields = Fields(wire, "fault.delay.")
    share = fields.take("percentage")
    how_many = fraction(share) if share is not None else (0, 100)
    how_long = fields.take("fixed_delay")
    if how_many[0] and how_long is not None:
        told.append(f"fault.delay: {seconds(how_long):g} s for {percent(how_many)} of the requests")
    told += fields.rest()
