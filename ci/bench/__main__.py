# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks: `python -m ci.bench [--only NAME] [--rounds N] [--output table|json]`."""

from __future__ import annotations

from pathlib import Path

import click

from ci.bench import accelerate, chosen, enhanced, images, probe, restart, routes, sync, traffic
from ci.bench.measure import Result, as_json, show
from ci.bench.plot import draw
from runtime import ui

_TARGET = Path("build") / "bench"


def _accelerate(*, rounds: int) -> Result:
    title = "same-node acceleration against plain TCP"
    return Result("accelerate", title, accelerate.measure(rounds))


def _enhanced(*, rounds: int, full: bool = False) -> Result:
    result = enhanced.measure(rounds=rounds, full=full)
    (_TARGET / "enhanced.svg").write_text(draw(result.rows), encoding="utf-8")
    return result


# accelerate last: it moves this process into a network namespace of its own.
_ALL = {
    "probe": probe.measure,
    "images": images.measure,
    "sync": sync.measure,
    "restart": restart.measure,
    "traffic": traffic.measure,
    "enhanced": _enhanced,
    "routes": routes.measure,
    "chosen": chosen.measure,
    "changed": chosen.measure_changes,
    "accelerate": _accelerate,
}


@click.command()
@click.option("--only", type=click.Choice(list(_ALL)), help="One benchmark instead of all.")
@click.option("--rounds", default=3, show_default=True, help="How often each is run.")
@click.option("--full", is_flag=True, help="HTTP requests of every size and number of connections.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def bench(*, only: str | None, rounds: int, full: bool, output: str) -> None:
    """Measure prober, pipeline, sync and restart, requests, changes of endpoints, and same-node acceleration.

    Needs root, nginx, wrk, clang, a Docker engine or the right to start one, and the compiled objects
    (`make bpf`). Medians of several rounds
    in which what is compared takes turns; compare ratios, and only within a run. Each result is
    also written to build/bench/NAME.json, and that of HTTP requests drawn in enhanced.svg there.
    """
    _TARGET.mkdir(parents=True, exist_ok=True)
    for name in [only] if only else _ALL:
        more = {"full": True} if full and name == "enhanced" else {}
        result = _ALL[name](rounds=rounds, **more)
        (_TARGET / f"{name}.json").write_text(as_json(result) + "\n")
        show(result, output)


if __name__ == "__main__":
    ui.main(bench, name="python -m ci.bench")
