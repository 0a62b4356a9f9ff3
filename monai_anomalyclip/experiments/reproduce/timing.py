# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How long a method takes on this machine, as the paper's table 8 has it: to tune for an epoch, to score an image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import nn

from monai_anomalyclip.networks import FrozenCLIPNetwork

__all__ = ["BATCH", "EPOCH_IMAGES", "time_method"]

EPOCH_IMAGES = 1725
"""Images of MVTec AD's test part, which the paper's epoch runs through."""

BATCH = 8
"""Images of a step of tuning, as in the paper."""


def time_method(
    network: FrozenCLIPNetwork,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    *,
    repeats: int = 3,
    batch: int = BATCH,
) -> dict[str, float]:
    """Time steps of tuning and single predictions on random images of the network's size.

    Nothing is cached or read from disk: what is timed is the computation alone. Tuned values change.

    Args:
        network: on the device to compute on.
        loss: of the logits.
        optimizer: of what is learned; None for a method that learns nothing.
        repeats: how often each is timed, after one run that is not; the fastest counts, as other programs only slow
            down.
        batch: images of a step.

    Returns:
        ``images_per_second``, and ``minutes_per_epoch`` where something is learned.
    """
    device = next(network.parameters()).device
    size = network.image_size
    image = torch.randn(1, 3, size, size, device=device)

    @torch.inference_mode()
    def predict() -> None:
        network.predict(image)

    times = {"images_per_second": 1 / _fastest(predict, device, repeats)}
    if optimizer is not None:
        images = torch.randn(batch, 3, size, size, device=device)
        mask = torch.zeros(batch, 1, size, size, device=device)
        mask[::2, :, : size // 4, : size // 4] = 1
        target = {"image_label": mask.flatten(1).amax(dim=1).long(), "label": mask}

        def step() -> None:
            optimizer.zero_grad()
            loss(network(images, output="logits"), target).backward()
            optimizer.step()

        steps = math.ceil(EPOCH_IMAGES / batch)
        times["minutes_per_epoch"] = steps * _fastest(step, device, repeats) / 60
    return times


def _fastest(action: Callable[[], None], device: torch.device, repeats: int) -> float:
    durations = []
    for _ in range(1 + repeats):
        begun = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations.append(time.perf_counter() - begun)
    return min(durations[1:])
