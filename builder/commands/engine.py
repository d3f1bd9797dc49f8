# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build engine`: the private engine by hand, to run what was built with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtime.errors import KmeshError

if TYPE_CHECKING:
    from builder.private_engine import PrivateEngine


@click.group()
def engine() -> None:
    """The private Docker engine that builds use where no other answers.

    \b
      kmesh-build engine start
      export DOCKER_HOST=$(kmesh-build engine url)
      docker images
    """  # noqa: D301 - \b is click's mark for "do not wrap"


@engine.command()
def start() -> None:
    """Start it, and leave it running."""
    private = _private()
    private.start().close()
    private.keep()
    click.echo(f"export DOCKER_HOST={private.url}")


@engine.command()
def stop() -> None:
    """End it; images stay for the next time."""
    _private().stop()


@engine.command()
def status() -> None:
    """Tell whether it runs; exit status 1 where it does not."""
    private = _private()
    if not private.running():
        raise KmeshError(f"the private engine does not run (data in {private.data})")
    click.echo(f"runs at {private.url} (data in {private.data})")


@engine.command()
def url() -> None:
    """Print what DOCKER_HOST is to be."""
    click.echo(_private().url)


def _private() -> PrivateEngine:
    from builder.cache import cache_dir
    from builder.private_engine import PrivateEngine

    return PrivateEngine.of(cache_dir())
