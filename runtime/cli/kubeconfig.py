# SPDX-License-Identifier: Apache-2.0
"""The cluster that `kmeshctl` asks: its options, and how it is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from runtime.cluster.client import Cluster

_Command = TypeVar("_Command", bound=Callable[..., Any])


def cluster_options(function: _Command) -> _Command:
    """`--kubeconfig` and `--context`, for the whole of kmeshctl."""
    function = click.option(
        "--context",
        metavar="NAME",
        help="The context of the kubeconfig, where not its current one.",
    )(function)
    return click.option(
        "--kubeconfig",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Without: KUBECONFIG, or ~/.kube/config.",
    )(function)


def user_cluster() -> Cluster:
    """The cluster of the user's kubeconfig.

    Raises:
        ApiError: there is none that can be used.
    """
    from runtime.cluster.client import Cluster

    options = click.get_current_context().find_root().params
    return Cluster.by_kubeconfig(options.get("kubeconfig"), context=options.get("context"))
