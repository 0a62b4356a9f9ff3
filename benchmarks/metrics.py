# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the three ways to AUPRO against the published loop: same maps, same run.

The ways take turns, so that a busy machine slows all of them. Times are those of giving the maps to the metric in
batches and of its value. Memory is the peak of a process of its own per way, above what it held with the maps loaded,
over the size of the maps (float32) and masks (uint8). At the end a long data set is streamed through the histogram.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from measuring import write_record
from published_pro_loop import published_pro_loop
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate

from monai_anomalyclip.metrics import AUPROMetric

PUBLISHED = "published"
METHODS = ("exact", "thresholds_200", "histogram")
BATCH = 8
DISTINCT = 16  # maps that a stream is made from
MEBIBYTE = 2**20
EXAMPLES = """examples:
  python benchmarks/metrics.py                      100 maps of 518x518 and a stream of 3,700, minutes on a CPU
  python benchmarks/metrics.py --count 20 --stream 0 --repeats 3
  python benchmarks/metrics.py --device cuda --json metrics.json
"""


def make_maps(count: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Maps (count, 1, size, size) as a network gives them, smooth and in [0, 1], and masks; three of five anomalous."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    masks = np.zeros((count, size, size), np.uint8)
    for index in range(count):
        if index % 5 < 3:
            for _ in range(random.integers(1, 4)):
                (y, x), (height, width) = random.uniform(0.1, 0.9, 2), random.uniform(0.02, 0.14, 2)
                masks[index] |= ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
    grid = max(2, size // 14)
    noise = torch.from_numpy(random.normal(size=(count, 1, grid, grid)).astype(np.float32))
    maps = interpolate(noise, (size, size), mode="bilinear", align_corners=False).numpy()[:, 0]
    for index in range(count):
        maps[index] = ndimage.gaussian_filter(maps[index] + 1.5 * masks[index], 4.0)
    return torch.sigmoid(torch.from_numpy(maps))[:, None], torch.from_numpy(masks)[:, None]


def make_run(way: str, maps: Tensor, masks: Tensor) -> Callable[[], float]:
    """A function without arguments that computes the value one way."""

    def published() -> float:
        return published_pro_loop(masks[:, 0].cpu().numpy(), maps[:, 0].cpu().numpy())

    def ours() -> float:
        metric = AUPROMetric(way)
        for start in range(0, len(maps), BATCH):
            metric(y_pred=maps[start : start + BATCH], y=masks[start : start + BATCH])
        return float(metric.aggregate())

    return published if way == PUBLISHED else ours


def measure_times(runs: dict[str, Callable[[], float]], repeats: int, slow_repeats: int) -> dict[str, list[float]]:
    """Seconds of each way; they take turns and the order is reversed each time."""
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for repeat in range(repeats):
        for way in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
            if way == PUBLISHED and repeat >= slow_repeats:
                continue
            start = time.perf_counter()
            runs[way]()
            seconds[way].append(time.perf_counter() - start)
    return seconds


class PeakMemory:
    """Samples what this process holds (on a GPU: what its allocator gave out) while the block runs."""

    def __enter__(self) -> PeakMemory:
        self._process, self._stop = psutil.Process(), threading.Event()
        self.before = self.peak = self._process.memory_info().rss
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, self._process.memory_info().rss)


def memory_over_input(way: str, count: int, size: int) -> float:
    """Peak memory of one run above the loaded maps, over the size of maps and masks; on the CPU."""
    maps, masks = make_maps(count, size)
    make_run(way, *make_maps(1, 64))()  # loads what has to be loaded
    with PeakMemory() as memory:
        make_run(way, maps, masks)()
    return (memory.peak - memory.before) / (maps.nbytes + masks.nbytes)


def stream(count: int, size: int, device: str) -> dict[str, float]:
    """Put many maps, made on the way from a few, through the histogram; whole process, seconds without the making."""
    base_maps, base_masks = make_maps(DISTINCT, size)
    metric, random, seconds = AUPROMetric("histogram"), np.random.default_rng(1), 0.0
    with PeakMemory() as memory:
        for index in range(count):
            shift = random.integers(0, size, 2).tolist()
            one = index % DISTINCT
            score = torch.roll(base_maps[one], shift, (1, 2)) ** float(random.uniform(0.9, 1.1))
            mask = torch.roll(base_masks[one], shift, (1, 2))
            score, mask = score[None].to(device), mask[None].to(device)
            start = time.perf_counter()
            metric(y_pred=score, y=mask)
            seconds += time.perf_counter() - start
        start = time.perf_counter()
        value, bound = float(metric.aggregate()), metric.error_bound()
        seconds += time.perf_counter() - start
    return {
        "maps": count,
        "seconds": seconds,
        "peak_mib": memory.peak / MEBIBYTE,
        "value": value,
        "error_bound": bound,
    }


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run, as they are written to ``--json``."""
    maps, masks = (tensor.to(options.device) for tensor in make_maps(options.count, options.size))
    runs = {way: make_run(way, maps, masks) for way in (PUBLISHED, *METHODS)}
    few = {way: make_run(way, maps[:4], masks[:4]) for way in METHODS}
    for run in few.values():
        run()  # the warm-up
    seconds = measure_times(runs, options.repeats, options.slow_repeats)
    metric = AUPROMetric("histogram")
    metric(y_pred=maps, y=masks)
    bound = metric.error_bound()
    figures: dict[str, Any] = {}
    for way, run in runs.items():
        one = seconds[way]
        figures[way] = {
            "seconds_median": statistics.median(one),
            "seconds_min": min(one),
            "seconds_max": max(one),
            "value": run() if way != PUBLISHED else None,
            "error_bound": {"exact": 0.0, "histogram": bound}.get(way),
            "times_faster": statistics.median(seconds[PUBLISHED]) / statistics.median(one),
            "times_faster_least": min(seconds[PUBLISHED]) / max(one),
            "times_faster_most": max(seconds[PUBLISHED]) / min(one),
            "memory_over_input": in_own_process(memory_over_input, way, options.count, options.size)
            if options.memory
            else None,
        }
    few_maps = min(options.count, 4)  # the loop's value is compared on few maps, because it is slow
    loop, fast = (make_run(way, maps[:few_maps], masks[:few_maps])() for way in (PUBLISHED, "thresholds_200"))
    figures["thresholds_200"]["difference_from_published"] = abs(loop - fast)
    if options.stream:
        figures["stream"] = in_own_process(stream, options.stream, options.size, options.device)
    return figures


def describe(options: argparse.Namespace, figures: dict[str, Any]) -> str:
    lines = [
        f"{options.count} maps of {options.size}x{options.size}, {options.device}, {torch.get_num_threads()} threads, "
        f"{options.repeats} repeats ({options.slow_repeats} of the published loop), torch {torch.__version__}",
        f"{'way':16}{'median s':>10}{'min':>9}{'max':>9}{'faster x':>10}{'from':>8}{'to':>8}{'memory x':>10}"
        f"{'value':>10}{'off at most':>13}",
    ]
    for way in (PUBLISHED, *METHODS):
        one = figures[way]
        text = [f"{one[key]:.5f}" if one[key] is not None else "-" for key in ("value", "error_bound")]
        memory = "-" if one["memory_over_input"] is None else f"{one['memory_over_input']:.2f}"
        lines.append(
            f"{way:16}{one['seconds_median']:10.3f}{one['seconds_min']:9.3f}{one['seconds_max']:9.3f}"
            f"{one['times_faster']:10.1f}{one['times_faster_least']:8.1f}{one['times_faster_most']:8.1f}{memory:>10}"
            f"{text[0]:>10}{text[1]:>13}"
        )
    lines.append(
        f"thresholds_200 and the published loop differ by {figures['thresholds_200']['difference_from_published']:.1e} "
        "on the first maps. memory x: above the loaded maps, over maps and masks, on the CPU."
    )
    if "stream" in figures:
        one = figures["stream"]
        lines.append(
            f"stream of {one['maps']} maps through the histogram: {one['seconds']:.1f} s, whole process at most "
            f"{one['peak_mib']:.0f} MiB, value {one['value']:.5f}, off by {one['error_bound']:.1e} at most."
        )
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="number of maps (default 100)")
    parser.add_argument("--size", type=int, default=518, help="side of a map in pixels (default 518)")
    parser.add_argument("--stream", type=int, default=3700, help="number of maps to stream (default 3700; 0: none)")
    parser.add_argument("--device", default="cpu", help="where the maps lie: cpu, cuda, ... (default cpu)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way (default 5)")
    parser.add_argument("--slow-repeats", type=int, default=2, help="timed runs of the published loop (default 2)")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave out the memory figures")
    parser.add_argument("--json", type=Path, help="write the figures to this new JSON file")
    options = parser.parse_args(arguments)
    if min(options.count, options.repeats, options.slow_repeats) < 1 or options.stream < 0 or options.size < 32:
        parser.error(
            "--count, --repeats and --slow-repeats must be at least 1, --size at least 32, --stream not less than 0."
        )
    if options.json and options.json.exists():
        parser.error(f"{options.json} exists; give another name.")
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here.")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    options.slow_repeats = min(options.slow_repeats, options.repeats)
    figures = measure(options)
    print(describe(options, figures))
    if options.json:
        record = {
            "setup": {key: value for key, value in vars(options).items() if key != "json"},
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "processor": platform.machine(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "figures": figures,
        }
        write_record(options.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
