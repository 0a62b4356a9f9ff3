# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PatchCore (Roth et al., CVPR 2022): distance of patch features to those of normal images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from monai_anomalyclip.experiments.fullshot.network import (
    FullShotNetwork,
    anomalib_needed,
    fill_backbone,
)

__all__ = ["PatchCore"]

_LAYERS = ("layer2", "layer3")
_STRIDE = 8  # of layer2, pixels per patch


class PatchCore(FullShotNetwork):
    """A memory of patch features of normal images; a patch is as anomalous as it is far from the nearest of them.

    Features of the second and third stage are averaged over 3 x 3 and joined on the finer grid (section 3.1); a
    coreset of them is kept (section 3.2). The map holds distances to the nearest feature kept, upsampled and smoothed
    (sigma 4), the score is that of the farthest patch, weighted by its neighbourhood (equations 6 and 7).

    Source: PatchCore (CVPR 2022), section 3, as in :class:`anomalib.models.image.patchcore.torch_model.PatchcoreModel`.

    Args:
        backbone, weights, image_size: see :class:`~monai_anomalyclip.experiments.fullshot.network.FullShotNetwork`.
        coreset_ratio: share of the patch features that is kept, in (0, 1]; 1 keeps all and selects nothing.
        num_neighbors: features of the neighbourhood, b in equation 7; 1 for scores without weight.

    Example::

        network = PatchCore(weights="wide_resnet50_2.safetensors")
        network.fit(normal_images)
        prediction = network.predict(batch)
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        *,
        weights: str | Path | None,
        image_size: int = 256,
        coreset_ratio: float = 0.1,
        num_neighbors: int = 9,
    ) -> None:
        super().__init__(image_size, backbone)
        if not 0 < coreset_ratio <= 1:
            raise ValueError(f"coreset_ratio={coreset_ratio} must lie in (0, 1].")
        if num_neighbors < 1:
            raise ValueError(f"num_neighbors={num_neighbors} must be at least 1.")
        with anomalib_needed():
            from anomalib.models.image.patchcore.torch_model import PatchcoreModel
        self.coreset_ratio = coreset_ratio
        self.model = PatchcoreModel(
            layers=list(_LAYERS), backbone=backbone, pre_trained=False, num_neighbors=num_neighbors
        ).eval()
        fill_backbone(self.model.feature_extractor.feature_extractor, backbone, weights)

    @torch.no_grad()
    def fit(self, images: Sequence[Tensor], *, batch_size: int = 16, progress: bool = True) -> dict[str, Any]:
        """Fill the memory.

        Returns:
            ``memory_bank``, the number of features that are kept.

        Raises:
            ValueError: without images, or when their features do not fit into the memory.
        """
        if not images:
            raise ValueError("PatchCore needs at least one normal image.")
        self._check_memory(len(images))
        self.model.embedding_store.clear()
        self.model.train()
        try:
            for start in tqdm(range(0, len(images), batch_size), desc="Features", disable=not progress):
                self.model(self.normalize(torch.stack(list(images[start : start + batch_size]))))
        finally:
            self.model.eval()
        if self.coreset_ratio == 1:  # the selection would take a quadratic time to keep everything
            self.model.memory_bank = torch.vstack(self.model.embedding_store)
            self.model.embedding_store.clear()
        else:
            self.model.subsample_embedding(self.coreset_ratio)
        return {"memory_bank": len(self.model.memory_bank)}

    def _check_memory(self, count: int) -> None:
        """Refuse what would end in an out-of-memory error: all features, twice while they are joined."""
        patches = count * (self.image_size // _STRIDE) ** 2
        needed = 2 * patches * sum(self.model.feature_extractor.out_dims) * self.mean.element_size()
        device = self.mean.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
        if needed > free:
            raise ValueError(
                f"The patch features of {count} images of {self.image_size} pixels need {needed / 2**30:.1f} GiB but "
                f"{free / 2**30:.1f} GiB are free: choose a smaller image size or a smaller backbone."
            )
