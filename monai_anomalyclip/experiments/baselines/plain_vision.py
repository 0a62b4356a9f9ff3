# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP's own vision pass, with the tokens tapped on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from monai_anomalyclip.networks.attention import attend, mlp, project_qkv
from monai_anomalyclip.networks.token_embedding import TokenEmbedding

__all__ = ["PlainVision"]


class PlainVision(TokenEmbedding):
    """Drives open_clip's vision tower as CLIP does, at any image size.

    Args:
        feature_layers: numbers of the tapped blocks, ascending, from 1.
        project: whether tapped tokens pass ``ln_post`` and the projection, as the image feature does.
        bicubic_positions: whether positions are resized as open_clip does it when it loads weights for another image
            size, bicubically with antialiasing; else bilinearly, as AnomalyCLIP's authors do it.
    """

    def __init__(self, feature_layers: Sequence[int], *, project: bool, bicubic_positions: bool = False) -> None:
        super().__init__()
        self.bicubic_positions = bicubic_positions
        self.feature_layers = tuple(feature_layers)
        self.project = project

    def __call__(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode a batch of images.

        Args:
            visual: the vision tower.
            image: CLIP-normalised, shape (B, 3, H, W), H and W multiples of the patch size.

        Returns:
            image features (B, D), as CLIP gives them; and one tensor of tokens per tapped block, class token first,
            (B, N, D) when projected, else (B, N, W).
        """
        tokens = self.embed(visual, image)
        tapped = []
        for number, block in enumerate(visual.transformer.resblocks, start=1):
            tokens = mlp(block, tokens + attend(block, *project_qkv(block, tokens)))
            if number in self.feature_layers:
                tapped.append(visual.ln_post(tokens) @ visual.proj if self.project else tokens)
        return visual.ln_post(tokens[:, 0]) @ visual.proj, tapped

    def _position_embedding(self, visual: VisionTransformer, grid: tuple[int, int]) -> Tensor:
        trained: Tensor = visual.positional_embedding
        if not self.bicubic_positions or grid == visual.grid_size:
            return super()._position_embedding(visual, grid)
        square = trained[1:].T.reshape(1, -1, *visual.grid_size).float()
        resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([trained[:1], resized.flatten(2)[0].T.to(trained.dtype)])
