# SPDX-License-Identifier: Apache-2.0
"""The generic image as an archive for containerd, which has no registry to pull it from."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from builder.cache import cache_dir
from runtime.errors import KmeshError
from runtime.process import run

REPOSITORY, TAG = "localhost/kmesh/kmesh", "cluster"
_KEPT = 2  # archives: this one and the one before, 430 MB each


def archive() -> Path:
    """Build the generic image from this checkout, unless it is built; its archive, kept by its id.

    Raises:
        KmeshError: it cannot be built.
    """
    build = [sys.executable, "-m", "builder.cli", "images", "--image", "generic", "--tag", TAG]
    build += ["--hub", REPOSITORY.rpartition("/")[0], "--no-probe", "--output", "json"]
    made = json.loads(run(build, timeout=1800).stdout)["images"][0]
    directory = cache_dir() / "cluster-images"
    target = directory / f"{made['id'].removeprefix('sha256:')[:32]}.tar"
    if not target.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        _save(target)
        _forget_old(directory)
    os.utime(target)
    return target


def _save(target: Path) -> None:
    from builder.engine_session import engine_session

    scratch = target.with_suffix(f".{os.getpid()}")
    try:
        with (
            engine_session(cache_dir(), keep=False, say=lambda _text: None) as engine,
            scratch.open("wb") as stream,
        ):
            engine.save(f"{REPOSITORY}:{TAG}", stream)
        scratch.replace(target)
    except OSError as error:
        raise KmeshError(f"cannot keep the image's archive: {error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _forget_old(directory: Path) -> None:
    archives = sorted(directory.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[_KEPT:]:
        old.unlink()
