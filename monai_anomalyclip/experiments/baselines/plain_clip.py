# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP and CLIP-AC: an unchanged CLIP, its vision pass with tokens tapped on the way, and written prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from monai_anomalyclip.experiments.baselines.prompt_ensemble import FixedPrompts, ensemble_prompts
from monai_anomalyclip.networks.backbone import build_backbone
from monai_anomalyclip.networks.dpam import TokenEmbedding, attend, mlp, project_qkv
from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork, check_settings

__all__ = ["PlainCLIP", "PlainVision"]


class PlainVision(TokenEmbedding):
    """Drives open_clip's vision tower as CLIP does, at any image size.

    Args:
        feature_layers: numbers of the tapped blocks, ascending, from 1.
        project: whether tapped tokens pass ``ln_post`` and the projection, as the image feature does.
        bicubic_positions: whether positions are resized as open_clip does it when it loads weights for another image
            size, bicubically with antialiasing; else bilinearly, as AnomalyCLIP's authors do it.

    Example::

        feature, (tokens,) = PlainVision([24], project=True)(clip.visual, image)
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


class PlainCLIP(FrozenCLIPNetwork):
    """Zero-shot classification of the image, and of every patch, as normal or anomalous. Nothing is learned.

    The image feature is CLIP's own. The map applies the same probability (AnomalyCLIP, ICLR 2024, equation 1) to the
    patch tokens after the last block, which pass ``ln_post`` and the projection as the class token does, and is
    upsampled bilinearly. The vision side is not modified.

    Source: AnomalyCLIP (ICLR 2024), appendix on baselines, "CLIP" and "CLIP-AC".

    Args:
        model_name: open_clip model name, or a config dictionary (see
            :func:`~monai_anomalyclip.networks.build_backbone`).
        pretrained: open_clip tag, local weights file, or None for random weights (with a warning).
        image_size: side of the square input in pixels; a multiple of the patch size.
        temperature: softmax temperature.
        ensemble: "single" for CLIP, "imagenet" for CLIP-AC, or another one (see :func:`ensemble_prompts`).
        class_name: what the prompts speak of. The published figures use each data set's class names.

    Raises:
        ValueError: for settings that the backbone cannot take.
        FileNotFoundError: when the CLIP weights can be neither found nor fetched.

    Example::

        network = PlainCLIP(pretrained="ViT-L-14-336px.pt", ensemble="imagenet")  # CLIP-AC
        score = network.predict(image)["anomaly_score"]
    """

    def __init__(
        self,
        model_name: str | Mapping[str, Any] = "ViT-L-14-336-quickgelu",
        pretrained: str | Path | None = "openai",
        *,
        image_size: int = 518,
        temperature: float = 0.07,
        ensemble: str = "single",
        class_name: str = "object",
    ) -> None:
        check_settings(image_size, temperature)
        sentences = ensemble_prompts(ensemble, class_name)
        backbone = build_backbone(model_name, pretrained)
        last = len(backbone.clip.visual.transformer.resblocks)
        settings = {
            "vision": "plain",
            "image_size": image_size,
            "feature_layers": [last],
            "temperature": temperature,
            "ensemble": ensemble,
            "class_name": class_name,
        }
        super().__init__(backbone, image_size=image_size, temperature=temperature, settings=settings)
        self._vision = PlainVision([last], project=True)
        self.prompts = FixedPrompts(self.clip, *sentences)

    def _encode(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self._vision(visual, image)
