# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks: `python -m ci.bench [--only NAME] [--rounds N] [--output table|json]`."""

from __future__ import annotations

from pathlib import Path

import click

from ci.bench import accelerate, chosen, enhanced, images, probe, restart, sync, traffic
from ci.bench.measure import Result, as_json, show
from runtime import ui

_TARGET = Path("build") / "bench"


def _accelerate(*, rounds: int) -> Result:
    title = "same-node acceleration against plain TCP"
    return Result("accelerate", title, accelerate.measure(rounds))


# accelerate last: it moves this process into a network namespace of its own.
_ALL = {
    "probe": probe.measure,
    "images": images.measure,
    "sync": sync.measure,
    "restart": restart.measure,
    "traffic": traffic.measure,
    "enhanced": enhanced.measure,
    "chosen": chosen.measure,
    "changed": chosen.measure_changes,
    "accelerate": _accelerate,
}


@click.command()
@click.option("--only", type=click.Choice(list(_ALL)), help="One benchmark instead of all.")
@click.option("--rounds", default=3, show_default=True, help="How often each is run.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def bench(only: str | None, rounds: int, output: str) -> None:
    """Measure prober, pipeline, sync and restart, requests, changes of endpoints, and same-node acceleration.

    `python -m ci.bench.enhanced --full` measures HTTP requests at every size and number of connections.

    Needs root, nginx, wrk, clang, a Docker engine or the right to start one, and the compiled objects
    (`make bpf`). Medians of several rounds
    in which what is compared takes turns; compare ratios, and only within a run. Each result is
    also written to build/bench/NAME.json.
    """
    _TARGET.mkdir(parents=True, exist_ok=True)
    for name in [only] if only else _ALL:
        result = _ALL[name](rounds=rounds)
        (_TARGET / f"{name}.json").write_text(as_json(result) + "\n")
        show(result, output)


if __name__ == "__main__":
    ui.main(bench, name="python -m ci.bench")
