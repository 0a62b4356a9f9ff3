# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CoOp (Zhou et al., IJCV 2022), adapted to anomaly detection as the AnomalyCLIP paper did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_clip.transformer import VisionTransformer
from torch import Tensor

from monai_anomalyclip.experiments.baselines.plain_clip import PlainVision
from monai_anomalyclip.networks.anomaly_clip import PromptTunedNetwork
from monai_anomalyclip.networks.backbone import build_backbone
from monai_anomalyclip.networks.frozen_clip import check_settings
from monai_anomalyclip.networks.prompt_learner import PromptLearner

__all__ = ["CoOp"]


class CoOp(PromptTunedNetwork):
    """Learned context in front of "normal [object]" and "anomalous [object]", on an unchanged CLIP.

    The context [V]_1 ... [V]_M is unified, i.e. the same in both prompts, and the class stands at the end (CoOp,
    section 3.2). It is tuned on the class token alone: ``GlocalLoss(lambda_local=0)``. The map is that of the patch
    tokens after the last block, as for :class:`PlainCLIP`.

    Source: CoOp (IJCV 2022), section 3.2; AnomalyCLIP (ICLR 2024), appendix on baselines, "CoOp".

    Args:
        model_name: open_clip model name, or a config dictionary (see
            :func:`~monai_anomalyclip.networks.build_backbone`).
        pretrained: open_clip tag, local weights file, or None for random weights (with a warning).
        image_size: side of the square input in pixels; a multiple of the patch size.
        prompt_length: number M of learned context tokens.
        temperature: softmax temperature; None for CLIP's own logit scale, as CoOp has it (0.01 for OpenAI's weights).
        class_name: what the prompts speak of. The published figures use each data set's class names.
        shared_context: whether both prompts share their context; if not, it is class-specific (CoOp, section 3.2).

    Raises:
        ValueError: for settings that the backbone cannot take.
        FileNotFoundError: when the CLIP weights can be neither found nor fetched.

    Example::

        network = CoOp(pretrained="ViT-L-14-336px.pt", class_name="brain")
    """

    def __init__(
        self,
        model_name: str | Mapping[str, Any] = "ViT-L-14-336-quickgelu",
        pretrained: str | Path | None = "openai",
        *,
        image_size: int = 518,
        prompt_length: int = 16,
        temperature: float | None = None,
        class_name: str = "object",
        shared_context: bool = True,
    ) -> None:
        check_settings(image_size, 1.0 if temperature is None else temperature)
        backbone = build_backbone(model_name, pretrained)
        if temperature is None:
            temperature = float((-backbone.clip.logit_scale).exp())
        last = len(backbone.clip.visual.transformer.resblocks)
        words: dict[str, Any] = {
            "normal_words": [f"normal {class_name}"],
            "abnormal_words": [f"anomalous {class_name}"],
        }
        # The same record as AnomalyCLIP's, so that a prompt file tells what it was tuned with.
        settings = {
            "model_name": model_name if isinstance(model_name, str) else dict(model_name),
            "vision": "plain",
            "image_size": image_size,
            "feature_layers": [last],
            "dpam_start": last,
            "dpam_attention": "qk",
            "prompt_length": prompt_length,
            "deep_prompt_depth": 1,
            "deep_prompt_length": 0,
            "temperature": temperature,
            **words,
            "shared_context": shared_context,
        }
        super().__init__(backbone, image_size=image_size, temperature=temperature, settings=settings)
        self._vision = PlainVision([last], project=True)
        self.prompts = PromptLearner(
            self.clip,
            prompt_length=prompt_length,
            deep_prompt_depth=1,
            deep_prompt_length=0,
            shared_context=shared_context,
            **words,
        )

    def _encode(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self._vision(visual, image)
