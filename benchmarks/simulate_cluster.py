# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How long a million slices take on 1 to 1,000 workers: a simulation of inputs that are read, scored and stored.

Workers take one series after the other from a queue (as `predict --cluster` and a service do). A series is read over a
network that all share, decoded and scored on its worker, and stored in an archive that all share. Some series take much
longer than others, and some workers are lost with what they were doing, which is then done once more. Nothing is
scored: the times are the options'.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

EXAMPLES = """examples:
  python benchmarks/simulate_cluster.py
  python benchmarks/simulate_cluster.py --slice-seconds 3.87 --cores 2 --workers 1 10 100 1000
"""


@dataclass(frozen=True)
class Work:
    """What there is to do, and with what.

    Args:
        slices: in all.
        series_slices: of a series, on average.
        slice_bytes: of a slice as it is read.
        result_bytes: of a slice's results as they are stored.
        decode_s: seconds of a worker per slice to decode and to write results.
        slice_s: seconds of a worker per slice to score.
        load_s: seconds until a worker has its model, and again after it was lost.
        network: bytes per second that all workers read together.
        store: bytes per second that the archive takes.
        stragglers: share of the series that take ten times as long.
        losses: losses of a worker per hour.
        cores: of a worker.
    """

    slices: int = 1_000_000
    series_slices: int = 200
    slice_bytes: float = 0.25e6
    result_bytes: float = 0.1e6
    decode_s: float = 0.05
    slice_s: float = 0.5
    load_s: float = 20.0
    network: float = 1.25e9
    store: float = 0.3e9
    stragglers: float = 0.01
    losses: float = 0.01
    cores: int = 4


@dataclass(frozen=True)
class Outcome:
    """What a simulated run took.

    Args:
        workers: how many there were.
        hours: until the last series was done.
        core_hours: paid, with all workers held to the end.
        busy: share of the workers' time that was spent decoding and scoring.
        redone: series that were begun again because their worker was lost.
        bound: what was used most: "scoring", "network" or "store"; or "the longest series", which others wait for.
    """

    workers: int
    hours: float
    core_hours: float
    busy: float
    redone: int
    bound: str


class _Shared:
    """A line that all share, one transfer after the other; a queue at full speed takes as long as sharing does."""

    def __init__(self, speed: float) -> None:
        self.speed, self.free, self.used = speed, 0.0, 0.0

    def transfer(self, now: float, size: float) -> float:
        """When a transfer that is asked for now is done."""
        took = size / self.speed
        self.free = max(now, self.free) + took
        self.used += took
        return self.free


def simulate(work: Work, workers: int, seed: int = 0) -> Outcome:
    """Simulate a run.

    Args:
        work: what there is to do.
        workers: how many.
        seed: of the chance.

    Example:
        >>> simulate(Work(slices=10_000), 10).workers
        10
    """
    chance = random.Random(seed)
    sizes = []
    left = work.slices
    while left > 0:
        sizes.append(min(left, max(1, round(chance.gammavariate(4, work.series_slices / 4)))))
        left -= sizes[-1]
    network, store = _Shared(work.network), _Shared(work.store)
    # Events in the order of time, so that transfers queue in the order in which they are asked for: when, its number, a
    # size, and what happens then. "free": a worker takes its next series; "scored": its results are to be stored;
    # "lost": a worker dies with a series.
    events = [(work.load_s, number, 0, "free") for number in range(workers)]
    heapq.heapify(events)
    idle = 0
    busy = end = 0.0
    redone = 0
    count = workers

    def happen(when: float, size: int, what: str) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (when, count, size, what))

    while events:
        now, _, size, what = heapq.heappop(events)
        if what == "scored":
            end = max(end, stored := store.transfer(now, size * work.result_bytes))
            happen(stored, 0, "free")
        elif what == "lost":
            redone += 1
            sizes.append(size)
            happen(now + work.load_s, 0, "free")
            for _ in range(idle):
                happen(now, 0, "free")
            idle = 0
        elif not sizes:  # nothing to do, unless a worker is lost
            idle += 1
        else:
            size = sizes.pop()
            factor = 10.0 if chance.random() < work.stragglers else chance.lognormvariate(0, 0.25)
            read = network.transfer(now, size * work.slice_bytes)
            done = read + size * (work.decode_s + work.slice_s) * factor
            loss = now + chance.expovariate(work.losses / 3600) if work.losses else float("inf")
            busy += max(0.0, min(done, loss) - read)
            happen(min(done, loss), size, "scored" if done <= loss else "lost")
    shares = {"scoring": busy / (workers * end), "network": network.used / end, "store": store.used / end}
    bound = max(shares, key=lambda name: shares[name])
    if shares[bound] < 0.5:  # most workers have long been done
        bound = "the longest series"
    return Outcome(workers, end / 3600, end / 3600 * workers * work.cores, shares["scoring"], redone, bound)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Work()
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 30, 100, 300, 1000], metavar="N")
    for name in ("slices", "series_slices", "cores"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name), metavar="N")
    parser.add_argument("--slice-seconds", type=float, default=default.slice_s, metavar="S", help="to score a slice")
    parser.add_argument("--decode-seconds", type=float, default=default.decode_s, metavar="S", help="and to decode it")
    parser.add_argument("--network", type=float, default=default.network, metavar="B", help="bytes per second, all")
    parser.add_argument("--store", type=float, default=default.store, metavar="B", help="bytes per second, the archive")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    options = parser.parse_args(arguments)
    work = replace(
        default,
        slices=options.slices,
        series_slices=options.series_slices,
        cores=options.cores,
        slice_s=options.slice_seconds,
        decode_s=options.decode_seconds,
        network=options.network,
        store=options.store,
    )
    print("| workers | hours | core-hours | busy | redone | bound by |\n|---|---|---|---|---|---|")
    rows = []
    for workers in options.workers:
        one = simulate(work, workers)
        rows.append(one.__dict__)
        print(
            f"| {one.workers:,} | {one.hours:,.2f} | {one.core_hours:,.0f} | {100 * one.busy:.0f} % | {one.redone} | "
            f"{one.bound} |"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
