# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""From an image to the tokens that enter the first block of the vision tower."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

__all__ = ["TokenEmbedding"]

_CACHED_SIZES = 8


class TokenEmbedding:
    """Embeds the patches of images of any size.

    Nothing of the tower is copied or changed. The object only caches resized position embeddings, one per image size.
    """

    def __init__(self) -> None:
        self._positions: OrderedDict[tuple[int, int, torch.device, torch.dtype], Tensor] = OrderedDict()

    def embed(self, visual: VisionTransformer, image: Tensor) -> Tensor:
        """Tokens of a batch of images: class token and patches with their positions, after ``ln_pre``.

        Args:
            visual: the vision tower.
            image: CLIP-normalised, shape (B, 3, H, W), H and W multiples of the patch size.

        Returns:
            (B, N, W) with N = 1 + H W / patch², class token first, in the parameters' precision.
        """
        patches = visual.conv1(image)
        grid = (patches.shape[-2], patches.shape[-1])
        # The residual stream keeps the parameters' precision: under autocast the convolution alone is rounded.
        patches = patches.flatten(2).transpose(1, 2).to(visual.class_embedding.dtype)
        class_token = visual.class_embedding.expand(patches.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self._position_embedding(visual, grid)
        embedded: Tensor = visual.ln_pre(tokens)
        return embedded

    def _position_embedding(self, visual: VisionTransformer, grid: tuple[int, int]) -> Tensor:
        """Trained positions, resized bilinearly (``align_corners=False``) to the grid of this image size."""
        trained: Tensor = visual.positional_embedding
        if grid == visual.grid_size:
            return trained
        if trained.requires_grad:  # a tower in training: the resized positions belong to its graph
            return _resize_positions(trained, visual.grid_size, grid)
        key = (*grid, trained.device, trained.dtype)
        if key not in self._positions:
            with torch.inference_mode(False), torch.no_grad():  # kept for later calls, which may record gradients
                self._positions[key] = _resize_positions(trained, visual.grid_size, grid)
            if len(self._positions) > _CACHED_SIZES:
                self._positions.popitem(last=False)
        self._positions.move_to_end(key)
        return self._positions[key]


def _resize_positions(trained: Tensor, trained_grid: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    width = trained.shape[-1]
    square = trained[1:].reshape(1, *trained_grid, width).permute(0, 3, 1, 2)
    precise = square.to(torch.promote_types(trained.dtype, torch.float32))
    resized = F.interpolate(precise, size=grid, mode="bilinear", align_corners=False).to(trained.dtype)
    return torch.cat([trained[:1], resized.flatten(2).transpose(1, 2)[0]])
