# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics on the share of one of several processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monai_anomalyclip.metrics import (
    AUPROMetric,
    ImageAPMetric,
    ImageAUROCMetric,
    ImageThresholdMetric,
    PerClassMetric,
    PixelAPMetric,
    PixelAUROCMetric,
    PixelThresholdMetric,
    RegionRecallMetric,
)

__all__ = ["run_process", "values"]

PIXEL = {
    "pixel_auroc": PixelAUROCMetric,
    "pixel_auroc_histogram": lambda: PixelAUROCMetric("histogram", bins=2**16),
    "pixel_ap": PixelAPMetric,
    "pixel_ap_histogram": lambda: PixelAPMetric("histogram", bins=2**16),
    "aupro": AUPROMetric,
    "aupro_200": lambda: AUPROMetric("thresholds_200"),
    "aupro_histogram": lambda: AUPROMetric("histogram", bins=2**16),
    "pixel_threshold": PixelThresholdMetric,
    "recall": lambda: RegionRecallMetric(0.9, (4, 9)),
}
IMAGE = {
    "image_auroc": ImageAUROCMetric,
    "image_ap": ImageAPMetric,
    "image_threshold": lambda: ImageThresholdMetric("fpr"),
}


def values(data: dict[str, np.ndarray], shares: dict[str, list[int]]) -> Iterator[tuple[str, float]]:
    """Every metric, in batches of three, for each way of sharing the images."""
    tensors = {name: torch.tensor(array) for name, array in data.items() if name != "classes"}
    classes = data["classes"].tolist()
    for how, own in shares.items():
        for name, make in {**PIXEL, **IMAGE}.items():
            pair = ("maps", "masks") if name in PIXEL else ("scores", "labels")
            metric, per_class = make(), PerClassMetric(make())
            for start in range(0, len(own), 3):
                chosen = own[start : start + 3]
                given: list[Tensor] = [tensors[key][chosen] for key in pair]
                metric(y_pred=given[0], y=given[1])
                per_class(*given, [classes[index] for index in chosen])
            for _ in range(2):
                yield f"{how} {name}", float(metric.aggregate())
            for part, value in metric.details().items():
                yield f"{how} {name} {part}", value
            yield f"{how} {name} mean", float(per_class.aggregate())
            for part, value in per_class.details().items():
                yield f"{how} {name} {part}", value


def run_process(data: dict[str, np.ndarray], folder: Path, rank: int) -> None:
    """One of two processes; writes what it found as JSON."""
    torch.set_num_threads(1)  # a forked process cannot use the threads that its parent started
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    everything = list(range(len(data["maps"])))
    shares = {
        "alternating": everything[rank::2],
        "uneven": everything[:2] if rank == 0 else everything[2:],
        "all on one": everything if rank == 0 else [],
        "none on the first": [] if rank == 0 else everything,
    }
    found = list(values(data, shares))
    torch.distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(found))
