# SPDX-License-Identifier: Apache-2.0
"""Everything that can be set about the connection to Istiod."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.source.istiod.credentials import Credentials
from runtime.source.istiod.node import Node

SECURE_ADDRESS = "istiod.istio-system.svc:15012"


@dataclass(frozen=True, slots=True, kw_only=True)
class IstiodConfig:
    """How to reach Istiod and how patiently; times are in seconds.

    Attributes:
        address: host and port.
        node: who we say we are.
        credentials: TLS and token, or plaintext.
        on_demand: hold only the addresses that were asked for, instead of the whole mesh.
        whole_for_policies: hold the whole mesh after all from the first policy on: it may be about anyone.
        backoff_first: bound of the random wait before the first new attempt; it doubles each time.
        backoff_most: bound of the wait before any attempt.
        keepalive: between pings on a silent connection.
        keepalive_timeout: after which a ping without an answer ends the connection.
        rotation_check: between looks at the root certificate.
        hostname_refresh: how long a resolved hostname is believed where DNS does not say.
        largest_request: bytes that Istiod takes in one message (ISTIO_GPRC_MAXRECVMSGSIZE, 4 MiB).
        hostname_wait: how long the first update may wait for hostnames to be resolved.
    """

    node: Node
    address: str = SECURE_ADDRESS
    credentials: Credentials = field(default_factory=Credentials)
    on_demand: bool = False
    whole_for_policies: bool = False
    backoff_first: float = 0.5
    backoff_most: float = 30.0
    keepalive: float = 30.0
    keepalive_timeout: float = 10.0
    rotation_check: float = 10.0
    hostname_refresh: float = 30.0
    hostname_wait: float = 2.0
    largest_request: int = 4_000_000

    def channel_options(self) -> list[tuple[str, str | int]]:
        """The gRPC core's arguments."""
        return [
            # A whole mesh comes in one message: 100,000 workloads are some 35 MB.
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", int(self.keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            # Retries and their backoff are ours; a new channel must be a new connection.
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
