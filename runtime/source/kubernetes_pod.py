# SPDX-License-Identifier: Apache-2.0
"""What a `Pod` (core/v1) tells beyond the endpoints of slices: its labels, and whose name it runs in."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.source.fields import Field
from runtime.source.kubernetes_service import labels_of


@dataclass(frozen=True, slots=True)
class Pod:
    labels: tuple[tuple[str, str], ...] = ()
    service_account: str = "default"


def parse_pod(document: Field, *, name: str, namespace: str) -> Pod:  # noqa: ARG001 - as the others
    """Read a Pod.

    Raises:
        FieldError: a field is wrong.
    """
    account = document.get("spec").get("serviceAccountName")
    return Pod(
        labels=labels_of(document.get("metadata").get("labels")),
        service_account=account.string(default="") or "default",
    )
