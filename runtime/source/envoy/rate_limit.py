# SPDX-License-Identifier: Apache-2.0
"""Local rate limits: one token bucket for all requests. Buckets by descriptor are beyond."""

from __future__ import annotations

from typing import Any

from runtime.model.http import RateLimit
from runtime.source.envoy.share import fraction
from runtime.source.envoy.whitelist import Fields, milliseconds

_TOO_MANY = 429


def decode_rate_limit(wire: Any) -> tuple[RateLimit | None, list[str]]:
    """A `LocalRateLimit`: its bucket, and what of it cannot be expressed."""
    fields = Fields(wire, "local_ratelimit.")
    told: list[str] = []
    enabled = _share(fields.take("filter_enabled"))
    enforced = _share(fields.take("filter_enforced"))
    status = _status(fields.take("status"), told)
    bucket = fields.take("token_bucket")
    # For gRPC, statistics, and descriptors, which are told themselves.
    fields.ignore(
        "stat_prefix", "rate_limited_as_resource_exhausted", "always_consume_default_token_bucket"
    )
    told += fields.rest()
    if bucket is None or not enabled[0]:
        return None, told
    if not enforced[0]:
        return None, told
    if enforced[0] != enforced[1]:
        told.append("local_ratelimit.filter_enforced: of a share of the requests")
        return None, told
    return _limit(bucket, status=status, share=enabled, told=told), told


def _share(wire: Any) -> tuple[int, int]:
    """A share that is not set is none of them, as in Envoy."""
    if wire is None or not wire.HasField("default_value"):
        return 0, 100
    return fraction(wire.default_value)


def _status(wire: Any, told: list[str]) -> int:
    if wire is None:
        return _TOO_MANY
    fields = Fields(wire, "local_ratelimit.status.")
    code: int = fields.take("code")
    told += fields.rest()
    return code if code >= 400 else _TOO_MANY  # as Envoy does with what is no error


def _limit(wire: Any, *, status: int, share: tuple[int, int], told: list[str]) -> RateLimit | None:
    fields = Fields(wire, "local_ratelimit.token_bucket.")
    most, tokens = fields.take("max_tokens"), fields.wrapped("tokens_per_fill", 1)
    interval = fields.take("fill_interval")
    told += fields.rest()
    if interval is None or not milliseconds(interval) or not tokens:
        told.append("local_ratelimit.token_bucket: it is never filled")
        return None
    return RateLimit(
        most=most,
        tokens=tokens,
        interval_ms=milliseconds(interval),
        status=status,
        numerator=share[0],
        denominator=share[1],
    )
