# SPDX-License-Identifier: Apache-2.0
"""`kmesh uninstall`."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--namespace",
    envvar="POD_NAMESPACE",
    show_envvar=True,
    default="kmesh-system",
    show_default=True,
    help="Where Kmesh is installed.",
)
@click.option("--timeout", type=float, default=300, show_default=True, help="Seconds.")
def uninstall(namespace: str, timeout: float) -> None:
    """End every daemon of a cluster, wait until each node is clean, and remove labels and annotations.

    `helm uninstall` runs it, beside a pod on every node that cleans it (kmesh cleanup --stay). It may
    be repeated, and changes nothing the second time.
    """
    from runtime.enrol.uninstall import Uninstaller
    from runtime.launch.cluster import connect

    Uninstaller(connect(), namespace=namespace, seconds=timeout, say=click.echo).run()
