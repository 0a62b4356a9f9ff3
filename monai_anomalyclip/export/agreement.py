# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Does an exported model compute what PyTorch computes? Measured on synthetic pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from monai_anomalyclip.demo.phantoms import MEDICAL_FAMILIES, sample_phantom
from monai_anomalyclip.networks import FrozenCLIPNetwork
from monai_anomalyclip.transforms import clip_normalize_resize

__all__ = ["EXACT", "Agreement", "Result", "check_batches", "measure_agreement", "predict_exactly"]

EXACT = 1e-4
"""Largest difference of a pixel of the map, and of a score, at which a model counts as the same."""

Result = tuple[Tensor, Tensor]
"""Anomaly map (B, 1, S, S) and score (B,) of a batch."""

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


def predict_exactly(network: FrozenCLIPNetwork, batches: Iterable[Tensor]) -> list[Result]:
    """Map and score of each batch by PyTorch; the network is to be in float32 on the CPU."""
    with torch.no_grad():
        results = [network.predict(batch) for batch in batches]
    return [(result["anomaly_map"], result["anomaly_score"]) for result in results]


def measure_agreement(expected: Sequence[Result], computed: Sequence[Result]) -> Agreement:
    """Compare the results of an exported model with its network's.

    Args:
        expected: map and score of each batch by :func:`predict_exactly`.
        computed: those of the exported model.

    Raises:
        ValueError: when the exported model returned other shapes.
    """
    maps, scores = [], []
    for (anomaly_map, score), (own_map, own_score) in zip(expected, computed, strict=True):
        if own_map.shape != anomaly_map.shape or own_score.shape != score.shape:
            raise ValueError(
                f"The exported model returns shapes {tuple(own_map.shape)} and {tuple(own_score.shape)} for "
                f"{len(anomaly_map)} images."
            )
        maps.append((own_map - anomaly_map).abs().flatten())
        scores.append((own_score - score).abs())
    off = torch.cat(maps)
    return Agreement(len(torch.cat(scores)), float(off.mean()), float(off.max()), float(torch.cat(scores).max()))
