# SPDX-License-Identifier: Apache-2.0
"""`python -m ci.hosts [--out DIR] [HOST...]`: the compile image, tried on roots of other distributions.

For each host (bullseye, bookworm, trixie, sid, rpm) the image runs as the README says, with that root's
os-release, /lib/modules and /usr/src, for the kernel whose headers are in it: with nothing, with what is
no BTF, with headers, with BTF too. Exit status 1: one of them did not end as it should.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.cache import cache_dir
from builder.checkout import find_root, read_checkout
from builder.engine import Engine
from builder.engine_session import engine_session
from builder.kernels import judge_known
from builder.objects import make_objects
from builder.pipeline import Pipeline
from builder.progress import Progress, make_progress
from builder.recipes import recipe
from builder.request import Request
from ci.hosts.roots import chosen, root_of
from ci.hosts.trial import HUB, TAG, try_all
from runtime.errors import KmeshError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ci.hosts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hosts", nargs="*", metavar="HOST")
    parser.add_argument("--out", type=Path, help="keep what was made, in a directory for each host")
    options = parser.parse_args()
    try:
        return _run(options)
    except KmeshError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        print(f"hosts: {error}{hint}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    picked, wrong = chosen(options.hosts), 0
    with (
        make_progress() as progress,
        _kept(options.out) as out,
        engine_session(cache_dir(), keep=False, say=progress.say) as engine,
        _compile_image(engine, progress) as image,
    ):
        for host in picked:
            root = root_of(host, cache_dir(), say=progress.say)
            for line in try_all(engine, image, root, out / host.name, say=_tell):
                wrong += 1
                print(f"FAILED {host.name}: {line}", file=sys.stderr)
    return int(bool(wrong))


@contextmanager
def _kept(out: Path | None) -> Iterator[Path]:
    if out:
        yield out.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="kmesh-hosts-") as name:
        yield Path(name)


@contextmanager
def _compile_image(engine: Engine, progress: Progress) -> Iterator[str]:
    """The id of this checkout's compile image, built where the engine has it not; its name goes at the end.

    The steps of its build stay, so that the next one is quick.
    """
    checkout = read_checkout(find_root())
    compiles = recipe("compile")
    request = Request(
        checkout=checkout,
        cache=cache_dir(),
        images=[compiles],
        tag=TAG,
        hub=HUB,
        bootstrap=True,
    )
    built = checkout.root / "build/bpf"
    objects = make_objects(checkout.root / "bpf", built, load=False, say=progress.say)
    try:
        [made] = Pipeline(request, engine, objects, judge_known(built), progress).run()
        yield made.id
    finally:
        engine.remove(request.reference(compiles))


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
