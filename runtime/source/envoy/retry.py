# SPDX-License-Identifier: Apache-2.0
"""Retry policies: the one that Istio puts on every route, and those of users.

Istio's asks for two more attempts where the first did not reach the application. The path meets that by
dialling another endpoint before a request is sent. It also names gRPC statuses, which plain HTTP
does not have, and retriable status codes without naming any. Whatever says more is a user's.
"""

from __future__ import annotations

from typing import Any

from runtime.source.envoy.messages import type_name
from runtime.source.envoy.whitelist import Fields, seconds

# Not the server's answers: a connection that failed, a stream that HTTP/2 refused, gRPC's statuses.
_MET = frozenset(
    {
        "connect-failure",
        "refused-stream",
        "unavailable",
        "cancelled",
        "retriable-status-codes",
        "reset-before-request",
    }
)
_ISTIO_ATTEMPTS = 2
_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"


def decode_retry(wire: Any) -> list[str]:
    """What of a `RetryPolicy` the path does not meet, in words; None is no policy."""
    if wire is None:
        return []
    fields = Fields(wire, "retry_policy.")
    reasons = [each.strip() for each in fields.take("retry_on").split(",") if each.strip()]
    attempts = fields.wrapped("num_retries", 1)
    fields.ignore("host_selection_retry_max_attempts")
    per_try = fields.take("per_try_timeout")
    timeout = seconds(per_try) if per_try is not None else 0
    others = [
        predicate.name
        for predicate in fields.take("retry_host_predicate")
        if type_name(predicate.typed_config) != _PREVIOUS_HOSTS
    ]
    rest = fields.rest()
    if reasons == [] or (attempts == 0 and not timeout):
        return rest
    if set(reasons) <= _MET and attempts == _ISTIO_ATTEMPTS and not (timeout or others or rest):
        return []
    each = f", {timeout:g} s each" if timeout else ""
    told = f"retry_policy: {attempts} attempts on {','.join(reasons)}{each}"
    return [told, *(f"retry_policy.retry_host_predicate: {name}" for name in others), *rest]
