# SPDX-License-Identifier: Apache-2.0
"""What a route does: forward, redirect, or answer by itself."""

from __future__ import annotations

from typing import Any

from runtime.model.http import (
    DirectResponse,
    Forward,
    HashKind,
    HashPolicy,
    Redirect,
    WeightedCluster,
)
from runtime.source.envoy.match import header_name
from runtime.source.envoy.retry import decode_retry
from runtime.source.envoy.whitelist import Fields, seconds
from runtime.source.istiod.wire import BadResourceError

_CODES = (301, 302, 303, 307, 308)  # RedirectAction.RedirectResponseCode, in its order
_MOST_WEIGHT = 2**32 - 1


def decode_forward(wire: Any, *, retry: Any) -> tuple[Forward, list[str]]:
    """A `RouteAction`, and what of it cannot be expressed.

    Args:
        wire: the message.
        retry: the retry policy of the virtual host, for a route without one; or None.

    Raises:
        BadResourceError: its weights make no sense.
    """
    fields = Fields(wire)
    beyond: list[str] = []
    clusters = _clusters(fields, beyond)
    hashes = [_hash(each, beyond) for each in fields.take("hash_policy")]
    beyond += _timeouts(fields)
    beyond += decode_retry(fields.take("retry_policy") or retry)
    # Of gRPC, which the path does not serve; and what an answer says when there is no cluster.
    fields.ignore("max_grpc_timeout", "grpc_timeout_offset", "cluster_not_found_response_code")
    beyond += fields.rest()
    return Forward(tuple(clusters), tuple(each for each in hashes if each)), beyond


def _clusters(fields: Fields, beyond: list[str]) -> list[WeightedCluster]:
    if fields.has("cluster"):
        return [WeightedCluster(fields.take("cluster"))]
    if not fields.has("weighted_clusters"):
        return []  # told by `rest`: another kind of specifier
    weighted = Fields(fields.take("weighted_clusters"), "weighted_clusters.")
    clusters = []
    for wire in weighted.take("clusters"):
        one = Fields(wire, f"weighted_clusters {wire.name}: ")
        clusters.append(WeightedCluster(one.take("name"), one.wrapped("weight", 0)))
        beyond += one.rest()
    total = sum(each.weight for each in clusters)
    if not 0 < total <= _MOST_WEIGHT:
        raise BadResourceError(f"the weights of its clusters sum up to {total}")
    if weighted.wrapped("total_weight", total) != total:
        beyond.append("weighted_clusters.total_weight: not the sum of the weights")
    weighted.ignore("runtime_key_prefix")  # there is no runtime that overrides weights
    beyond += weighted.rest()
    return clusters


def _timeouts(fields: Fields) -> list[str]:
    timeout = fields.take("timeout")
    told = []
    if timeout is None:
        told.append("timeout: not set, which is 15 s")
    elif seconds(timeout) != 0:
        told.append(f"timeout: {seconds(timeout):g} s")
    idle = fields.take("idle_timeout")
    if idle is not None and seconds(idle) != 0:
        told.append(f"idle_timeout: {seconds(idle):g} s")
    stream = fields.take("max_stream_duration")
    if stream is not None:
        parts = Fields(stream, "max_stream_duration.")
        longest = parts.take("max_stream_duration")
        if longest is not None and seconds(longest) != 0:
            told.append(f"max_stream_duration: {seconds(longest):g} s")
        parts.ignore("grpc_timeout_header_max", "grpc_timeout_header_offset")
        told += parts.rest()
    return told


def _hash(wire: Any, beyond: list[str]) -> HashPolicy | None:
    fields = Fields(wire, "hash_policy.")
    terminal = fields.take("terminal")
    made = None
    kind = wire.WhichOneof("policy_specifier")
    part = Fields(fields.take(kind), f"hash_policy.{kind}.") if kind else None
    if part is not None and kind == "header":
        name = header_name(part.take("header_name"))
        made = HashPolicy(kind=HashKind.HEADER, name=name, terminal=terminal)
    elif part is not None and kind == "cookie":
        ttl = part.take("ttl")
        made = HashPolicy(
            kind=HashKind.COOKIE,
            name=part.take("name"),
            ttl=None if ttl is None else seconds(ttl),
            cookie_path=part.take("path"),
            terminal=terminal,
        )
    elif part is not None and kind == "connection_properties" and part.take("source_ip"):
        made = HashPolicy(kind=HashKind.SOURCE_IP, terminal=terminal)
    elif part is not None and kind == "query_parameter":
        made = HashPolicy(kind=HashKind.QUERY, name=part.take("name"), terminal=terminal)
    told = (part.rest() if part is not None else []) + fields.rest()
    if made is None and not told:
        told = [f"hash_policy: {kind or 'nothing'} is not known here"]
    beyond += told
    return made


def decode_redirect(wire: Any) -> tuple[Redirect, list[str]]:
    """A `RedirectAction`, and what of it cannot be expressed.

    Raises:
        BadResourceError: its response code does not exist.
    """
    fields = Fields(wire, "redirect.")
    code = fields.take("response_code")
    if not 0 <= code < len(_CODES):
        raise BadResourceError(f"redirect.response_code: {code} is not known")
    made = Redirect(
        status=_CODES[code],
        https=fields.take("https_redirect"),
        scheme=fields.take("scheme_redirect") or None,
        host=fields.take("host_redirect") or None,
        port=fields.take("port_redirect") or None,
        path=fields.take("path_redirect") or None,
        prefix=fields.take("prefix_rewrite") if fields.has("prefix_rewrite") else None,
        strip_query=fields.take("strip_query"),
    )
    return made, fields.rest()


def decode_direct(wire: Any) -> tuple[DirectResponse, list[str]]:
    """A `DirectResponseAction`, and what of it cannot be expressed.

    Raises:
        BadResourceError: its status is none that HTTP has.
    """
    fields = Fields(wire, "direct_response.")
    status = fields.take("status")
    if not 200 <= status < 600:
        raise BadResourceError(f"direct_response.status: {status} is not a status")
    body, told = b"", []
    source = fields.take("body")
    if source is not None:
        part = Fields(source, "direct_response.body.")
        text = part.take("inline_string") if part.has("inline_string") else ""
        body = text.encode() or part.take("inline_bytes")
        told = part.rest()
    return DirectResponse(status, body), told + fields.rest()
