# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Does an exported model compute what PyTorch computes? Measured on synthetic pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from monai_anomalyclip.demo.phantoms import MEDICAL_FAMILIES, sample_phantom
from monai_anomalyclip.networks import FrozenCLIPNetwork
from monai_anomalyclip.transforms import clip_normalize_resize

__all__ = ["EXACT", "Agreement", "Predict", "check_batches", "measure_agreement"]

EXACT = 1e-4
"""Largest difference of a pixel of the map, and of a score, at which a model counts as the same."""

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]

_BATCH_SIZES = (1, 3)
_PHANTOM_SIZE = 112


@dataclass(frozen=True)
class Agreement:
    """Differences from PyTorch in float32 on a CPU.

    Attributes:
        images: number of pictures compared.
        map_mean: mean absolute difference of the anomaly map.
        map_max: largest absolute difference of a pixel of the map.
        score_max: largest absolute difference of an anomaly score.
    """

    images: int
    map_mean: float
    map_max: float
    score_max: float

    @property
    def exact(self) -> bool:
        """Whether no pixel and no score is off by more than :data:`EXACT`; False for NaN."""
        return self.map_max <= EXACT and self.score_max <= EXACT

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"map {self.map_mean:.1e} mean, {self.map_max:.1e} largest; score {self.score_max:.1e} largest "
            f"({self.images} images)"
        )


def check_batches(image_size: int) -> list[Tensor]:
    """Batches of one and of three synthetic medical pictures with a lesion, (B, 3, S, S), CLIP-normalised."""
    pictures = [
        sample_phantom(MEDICAL_FAMILIES[index % len(MEDICAL_FAMILIES)], True, index, _PHANTOM_SIZE).image
        for index in range(sum(_BATCH_SIZES))
    ]
    images = torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])
    return list(torch.split(clip_normalize_resize(images, (image_size, image_size)), list(_BATCH_SIZES)))


def measure_agreement(network: FrozenCLIPNetwork, exported: Predict, batches: Sequence[Tensor]) -> Agreement:
    """Compare an exported model with its network.

    Args:
        network: the original, in float32 on the CPU.
        exported: gives map and score of a batch.
        batches: CLIP-normalised images.

    Raises:
        ValueError: when the exported model returns other shapes.
    """
    maps, scores = [], []
    for batch in batches:
        with torch.no_grad():
            expected = network.predict(batch)
        anomaly_map, score = exported(batch)
        if anomaly_map.shape != expected["anomaly_map"].shape or score.shape != expected["anomaly_score"].shape:
            raise ValueError(
                f"The exported model returns shapes {tuple(anomaly_map.shape)} and {tuple(score.shape)} for "
                f"{len(batch)} images."
            )
        maps.append((anomaly_map - expected["anomaly_map"]).abs().flatten())
        scores.append((score - expected["anomaly_score"]).abs())
    off = torch.cat(maps)
    return Agreement(len(torch.cat(scores)), float(off.mean()), float(off.max()), float(torch.cat(scores).max()))
