# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: seconds and peak memory of a call, what ran where, and the file of the figures."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import open_clip
import psutil
import torch

from monai_anomalyclip.networks import AnomalyCLIP

__all__ = ["Timing", "machine", "peak_mib", "random_network", "timings", "write_record"]

MEBIBYTE = 2**20


class Timing:
    """Seconds of repeated calls: on the clock, and of the processor, which other programs disturb less."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def measure(self, call: Callable[[], Any], device: torch.device) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    def as_dict(self) -> dict[str, float]:
        return {
            "seconds_median": self.median,
            "seconds_min": min(self.wall),
            "seconds_max": max(self.wall),
            "cpu_seconds_median": statistics.median(self.cpu),
        }

    def over(self, other: Timing) -> dict[str, float]:
        """How many times longer this took than the other: of the medians, the least and the most of any two repeats."""
        return {
            "ratio": self.median / other.median,
            "ratio_least": min(self.wall) / max(other.wall),
            "ratio_most": max(self.wall) / min(other.wall),
            "cpu_ratio": statistics.median(self.cpu) / max(statistics.median(other.cpu), 1e-9),
        }


def timings(calls: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, Timing]:
    """Timings of calls that take turns, in reversed order every second time."""
    found = {name: Timing() for name in calls}
    for repeat in range(repeats):
        for name in list(calls)[:: 1 if repeat % 2 == 0 else -1]:
            found[name].measure(calls[name], device)
    return found


def peak_mib(call: Callable[[], Any], device: torch.device) -> float:
    """Peak memory of a call over what was held before: the GPU allocator's, or the process's resident memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / MEBIBYTE
    with suppress(OSError, AttributeError):  # Linux: what was freed goes back first, or it would hide the next peak
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    process, stop = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    seen = [before]

    def sample() -> None:
        while not stop.wait(0.002):
            seen.append(process.memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        call()
        seen.append(process.memory_info().rss)
    finally:
        stop.set()
        sampler.join()
    return (max(seen) - before) / MEBIBYTE


def random_network(model: str, image_size: int, device: str) -> AnomalyCLIP:
    """AnomalyCLIP on random weights, equal each time; the last block is tapped and the rest is as released.

    Args:
        model: open_clip name, or a .json config file.
        image_size: side of the image.
        device: where it goes.
    """
    path = Path(model)
    name: str | dict[str, Any] = json.loads(path.read_text()) if path.suffix == ".json" else model
    config: dict[str, Any] = name if isinstance(name, dict) else open_clip.get_model_config(name) or {}
    layers = config["vision_cfg"]["layers"]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        network = AnomalyCLIP(
            name,
            None,
            image_size=image_size,
            feature_layers=(layers,),
            dpam_start=min(6, layers),
            deep_prompt_depth=min(9, config["text_cfg"]["layers"]),
        )
    return network.to(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure depends on besides the program."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the figures; the file appears when it is complete."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, path)
