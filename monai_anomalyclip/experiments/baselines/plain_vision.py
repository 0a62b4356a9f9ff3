# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP's own vision pass, with the tokens tapped on the way."""

from __future__ import annotations

from collections.abc import Sequence

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
    """

    def __init__(self, feature_layers: Sequence[int], *, project: bool) -> None:
        super().__init__()
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
