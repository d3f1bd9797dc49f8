# SPDX-License-Identifier: Apache-2.0
"""What a keep-alive HTTP request costs by each way: throughput, latency, processor time, memory.

    python -m ci.bench.enhanced [--full] [--rounds N] [--seconds N] [--output table|json] [--plot FILE]

The ways take turns within a round, and ratios are taken within a round: what else the machine does
then weighs on all of them alike. Processor time is that of client, server and proxies, and of all of
the kernel's threads, which carry what a redirect leaves to them.
"""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ci.bench.gate import compile_all
from ci.bench.measure import Result, median_row, show
from ci.bench.plot import draw
from ci.bench.ways import BROWSER, HEADERS, LEAN, PATHS, PLACES, Stand, Way, Ways, wait
from runtime import ui

_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
_QUICK = (
    ("loopback", "0 B", 1),
    ("loopback", "0 B", 16),
    ("loopback", "0 B", 128),
    ("loopback", BROWSER, 16),
    ("loopback", "10 MB", 16),
    ("loopback", "no endpoint", 16),
    ("veth", "0 B", 16),
    (LEAN, "0 B", 16),
)
_CONNECTIONS = (1, 16, 128)


def _nanoseconds(process: Path) -> int:
    """Processor time of a process's threads; none when it has just ended."""
    spent = 0
    for thread in process.glob("task/*/schedstat"):
        try:
            spent += int(thread.read_text(encoding="ascii").split()[0])
        except (OSError, IndexError):
            continue
    return spent


def _is_kernels(process: Path) -> bool:
    try:
        return not (process / "cmdline").read_bytes()
    except OSError:
        return False


def _with_children(pids: Iterable[int]) -> list[Path]:
    found = []
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        found += [Path(f"/proc/{one}") for one in (pid, *map(int, children.split()))]
    return found


def _cpu_us(ways: Stand, way: Way) -> float:
    ours = _with_children([*ways.servers, *way.processes])
    kernels = [path for path in Path("/proc").glob("[0-9]*") if _is_kernels(path)]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(map(_nanoseconds, [*ours, *kernels])) / 1e3
    return spent + (children.ru_utime + children.ru_stime) * 1e6


def _memory_kb(way: Way) -> int:
    total = 0
    for path in _with_children(way.processes):
        found = re.search(r"^Pss:\s+(\d+)", (path / "smaps_rollup").read_text(), re.MULTILINE)
        total += int(found[1]) if found else 0
    return total


def _read(told: str, name: str) -> tuple[float, float, int]:
    """Requests a second, the median latency in microseconds, and requests."""
    if lean := re.fullmatch(r"(\d+) ([\d.]+) ([\d.]+)\n", told):
        return int(lean[1]) / float(lean[2]), float(lean[3]), int(lean[1])
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s|m)\b", told)
    number = re.search(r"(\d+) requests in", told)
    if not (rate and median and number) or "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"{name}: wrk says {told}")
    return float(rate[1]), float(median[1]) * _UNITS[median[2]], int(number[1])


def once(
    ways: Stand,
    name: str,
    *,
    path: str,
    connections: int,
    seconds: int,
    headers: Sequence[str] = (),
) -> dict[str, float]:
    """One run of one way."""
    way = ways.ways[name]
    load = ways.load(way, path, connections=connections, seconds=seconds, headers=headers)
    before = _cpu_us(ways, way)
    done = subprocess.run(load, check=True, capture_output=True, text=True)
    rate, median, number = _read(done.stdout, name)
    return {
        "requests/s": rate,
        "p50 us": median,
        "cpu us": (_cpu_us(ways, way) - before) / max(number, 1),
        "memory KiB": _memory_kb(way),
    }


def _compare(
    ways: Ways, cell: tuple[str, str, int], *, rounds: int, seconds: int
) -> list[Mapping[str, Any]]:
    """A row for each way."""
    place, body, connections = cell
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways.ways}
    for _ in range(rounds):
        turn = {
            name: once(
                ways,
                name,
                path=PATHS[body],
                connections=connections,
                seconds=seconds,
                headers=HEADERS.get(body, ()),
            )
            for name in ways.ways
        }
        for name, run in turn.items():
            for other in ("direct", "two Envoys"):
                run[f"of {other}"] = run["requests/s"] / turn[other]["requests/s"]
            runs[name].append(run)
    what = {"place": place, "body": body, "connections": connections}
    return [{**what, "way": name, **median_row(each)} for name, each in runs.items()]


def measure(*, rounds: int, full: bool = False, seconds: int = 1) -> Result:
    """Compare the ways; see `ci.bench`.

    Args:
        rounds: how often each is run; medians count.
        full: every body, number of connections and place, and not a few of them.
        seconds: how long each run takes.
    """
    every = [(place, body, n) for place in PLACES for body in PATHS for n in _CONNECTIONS]
    every += [(LEAN, "0 B", n) for n in _CONNECTIONS]
    cells = every if full else _QUICK
    rows: list[Mapping[str, Any]] = []
    compile_all()
    for place in (*PLACES, LEAN):
        chosen = [cell for cell in cells if cell[0] == place]
        if not chosen:
            continue
        with Ways(place) as ways:
            for name in ways.ways:
                wait(ways, ways.ways[name], "/0", name=name)
            for cell in chosen:
                rows += _compare(ways, cell, rounds=rounds, seconds=seconds)
    return Result("enhanced", "HTTP requests of keep-alive connections, by each way", rows)


@click.command()
@click.option("--full", is_flag=True, help="Every body, number of connections and place.")
@click.option("--rounds", default=3, show_default=True, help="How often each is run.")
@click.option("--seconds", default=1, show_default=True, help="How long each run takes.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="A bar chart as SVG goes there.")
def main(*, full: bool, rounds: int, seconds: int, output: str, plot: Path | None) -> None:
    """Measure the ways of an HTTP request."""
    result = measure(rounds=rounds, full=full, seconds=seconds)
    show(result, output)
    if plot:
        plot.write_text(draw(result.rows), encoding="utf-8")


if __name__ == "__main__":
    ui.main(main, name="python -m ci.bench.enhanced")
