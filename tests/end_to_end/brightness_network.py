# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A network whose map is the picture itself, so that what a run writes can be told from what it read."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

__all__ = ["BrightnessNetwork"]


class BrightnessNetwork(torch.nn.Module):
    """Anomaly map: how bright a pixel is, from 0 to 1, once CLIP's normalisation is undone. Score: the brightest pixel.

    Args:
        image_size: (H, W); slices of this size are not resized, so that maps equal what the reader made of the voxels.
    """

    backbone_name = "brightness"
    backbone_sha256 = "0" * 64

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.image_size = tuple(image_size)
        self.settings: dict[str, Any] = {"image_size": list(image_size)}
        self.register_buffer("mean", torch.tensor(OPENAI_DATASET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(OPENAI_DATASET_STD)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, 1] of images (B, 3, H, W)."""
        return (image * self.std + self.mean).mean(dim=1, keepdim=True).clamp(0, 1)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """The map, and the score (B,)."""
        anomaly_map = self(image)
        return {"anomaly_map": anomaly_map, "anomaly_score": anomaly_map.amax(dim=(1, 2, 3))}
