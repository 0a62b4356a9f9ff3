# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP and CLIP-AC: an unchanged CLIP and written prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_anomalyclip.experiments.baselines.fixed_prompts import FixedPrompts
from monai_anomalyclip.experiments.baselines.plain_vision import PlainVision
from monai_anomalyclip.experiments.baselines.prompt_ensemble import ensemble_prompts
from monai_anomalyclip.networks.backbone import build_backbone
from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork, check_settings

__all__ = ["PlainCLIP"]


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

    def _encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self._vision(self.clip.visual, image)
