# SPDX-License-Identifier: Apache-2.0
"""Policies that services' own waypoints carry out, as far as nobody here decides them."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.model.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWaypoints:
    """What is known of policies that have `targetRefs`, where the source of policies does not tell of them.

    Attributes:
        policies: those to carry out that are attached to services, gateways or classes of gateways.
        unknown: why there may be others; "" where these are all.
    """

    policies: tuple[Policy, ...] = ()
    unknown: str = ""
