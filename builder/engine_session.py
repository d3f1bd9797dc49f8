# SPDX-License-Identifier: Apache-2.0
"""Which engine a build uses: the one that answers, as it is, or a private one for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.cache import lock
from builder.engine import Engine, EngineError
from builder.private_engine import PrivateEngine


@contextmanager
def engine_session(cache: Path, *, keep: bool, say: Callable[[str], None]) -> Iterator[Engine]:
    """Connect to an engine for the time of a `with` block.

    Args:
        cache: where a private engine has its data.
        keep: leave a private engine running.
        say: told which engine it is, and when one is started or stopped.

    Raises:
        KmeshError: none answers and none can be started.
    """
    try:
        engine = Engine.connect()
    except EngineError:
        with _private(cache, keep=keep, say=say) as engine:
            yield engine
        return
    say(f"using the engine that answers: {engine.description}")
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def _private(cache: Path, *, keep: bool, say: Callable[[str], None]) -> Iterator[Engine]:
    private = PrivateEngine.of(cache)

    def waiting() -> None:
        say("another build uses the private engine: waiting for it to end")

    with lock(cache / "engine.lock", waiting=waiting):
        found = private.running()
        verb = (
            "using the private engine that runs"
            if found
            else "no engine answers: starting a private one"
        )
        say(f"{verb} (data in {private.data})")
        kept = keep or private.kept
        engine = private.start()
        try:
            yield engine
        finally:
            engine.close()
            if kept:
                private.keep()
                say(f"the private engine stays: export DOCKER_HOST={private.url}")
            else:
                say("stopping the private engine (--keep-engine leaves it running)")
                private.stop()
