# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AnomalyCLIP: object-agnostic prompt learning for zero-shot anomaly detection (Zhou et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from monai_anomalyclip.networks.backbone import build_backbone
from monai_anomalyclip.networks.dpam import DualPathVision, parse_dpam_attention
from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork, check_feature_layers, check_settings
from monai_anomalyclip.networks.prompt_checkpoint import PromptCheckpoint, read_prompts, write_prompts
from monai_anomalyclip.networks.prompt_learner import PromptLearner
from monai_anomalyclip.networks.prompt_match import check_backbone_match, check_shapes, warn_other_settings

__all__ = ["AnomalyCLIP", "PromptTunedNetwork"]


class PromptTunedNetwork(FrozenCLIPNetwork):
    """Adds prompt files to :class:`FrozenCLIPNetwork`; a derived class sets ``prompts`` to a PromptLearner.

    Example::

        network = AnomalyCLIP(pretrained="ViT-L-14-336px.pt")  # is one
        network.load_prompts("9_12_4_multiscale/epoch_15.pth")
        network.save_prompts("prompts.safetensors")
    """

    prompts: PromptLearner

    def save_prompts(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the prompts with their settings and the backbone's identity.

        Args:
            path: ``.safetensors`` (ours), ``.pt`` (a bundle's model.pt) or ``.pth`` (published layout).
            overwrite: whether an existing file may be replaced.
        """
        write_prompts(self.checkpoint(), path, overwrite=overwrite)

    def load_prompts(self, path: str | Path, check_backbone: bool = True) -> None:
        """Load prompts written by :meth:`save_prompts` or by the authors' code.

        Args:
            path: a checkpoint in any of the three layouts.
            check_backbone: whether prompts tuned with another CLIP are refused.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is no prompt checkpoint, its lengths, depth or width differ, or the backbone is
                another one.
        """
        checkpoint = read_prompts(path)
        own = self.checkpoint()
        check_shapes(checkpoint, own, str(path))
        if check_backbone:
            check_backbone_match(checkpoint, own, str(path))
        warn_other_settings(checkpoint, own, str(path))
        targets = [*self.prompts.contexts, *self.prompts.deep_prompts]
        sources = [checkpoint.context_normal, checkpoint.context_abnormal, *checkpoint.deep_prompts]
        with torch.no_grad():
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source)

    def checkpoint(self) -> PromptCheckpoint:
        """The prompts with their settings and the backbone's identity, on the CPU."""
        ids = F.pad(self.prompts.word_ids.cpu(), (0, self.clip.context_length - self.prompts.word_ids.shape[1]))
        distinct = list(dict.fromkeys([*ids.flatten().tolist(), 0]))
        table = self.clip.token_embedding.weight[distinct].detach().cpu().float()
        normal, abnormal = self.prompts.contexts
        return PromptCheckpoint(
            normal.detach().cpu(),
            abnormal.detach().cpu(),
            tuple(deep.detach().cpu() for deep in self.prompts.deep_prompts),
            ids,
            dict(zip(distinct, table, strict=True)),
            {"name": self.backbone_name, "sha256": self.backbone_sha256},
            self.settings,
        )

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Refuse prompts of another backbone, and warn of other settings.

        Raises:
            ValueError: when the prompts were tuned with another CLIP.
        """
        own = self.checkpoint()
        loaded = PromptCheckpoint(
            own.context_normal,
            own.context_abnormal,
            own.deep_prompts,
            record.get("token_ids"),
            record.get("token_rows", {}),
            record.get("backbone", {}),
            record.get("settings", {}),
        )
        check_backbone_match(loaded, own, "this state dict")
        warn_other_settings(loaded, own, "this state dict")


class AnomalyCLIP(PromptTunedNetwork):
    """Frozen CLIP with two learned, object-agnostic prompts that scores and segments anomalies.

    The frozen CLIP is in eval mode whatever ``train()`` says and is absent from ``state_dict()``, which holds the
    learned prompts only. Deep copies share it, so that moving or casting one of them moves or casts the CLIP of all.

    Args:
        model_name: open_clip model name, or a config dictionary (see
            :func:`~monai_anomalyclip.networks.build_backbone`).
        pretrained: open_clip tag, local weights file, or None for random weights (with a warning).
        image_size: side of the square input in pixels that the pre-processing aims at; a multiple of the patch size.
            The network itself takes any size that is a multiple of the patch.
        feature_layers: vision blocks, from 1, whose patch features give the anomaly map.
        dpam_start: first vision block with a diagonally prominent attention path.
        dpam_attention: "vv", "qq", "kk", "qk" (no DPAM), or an ensemble such as "qq+kk+vv", whose logits are
            averaged (paper, table 10).
        prompt_length: number of learned context tokens of a prompt.
        deep_prompt_depth: number of the last text block with learned tokens; 1 for none.
        deep_prompt_length: number of learned tokens in such a block.
        temperature: softmax temperature; CLIP's own logit scale is not used.
        normal_words: what the normal prompt speaks of; a class name makes it object-aware (paper, figure 5).
        abnormal_words: what the abnormal prompt speaks of (paper, table 13).
        shared_context: whether both prompts share their context tokens (paper, table 9).

    Raises:
        ValueError: for settings that the backbone cannot take.
        FileNotFoundError: when the CLIP weights can be neither found nor fetched.

    Example::

        net = AnomalyCLIP(pretrained="ViT-L-14-336px.pt")
        net.load_prompts("prompts.safetensors")
        output = net.predict(image)  # (B, 3, 518, 518), CLIP-normalised
    """

    def __init__(
        self,
        model_name: str | Mapping[str, Any] = "ViT-L-14-336-quickgelu",
        pretrained: str | Path | None = "openai",
        *,
        image_size: int = 518,
        feature_layers: Sequence[int] = (24,),
        dpam_start: int = 6,
        dpam_attention: str = "vv",
        prompt_length: int = 12,
        deep_prompt_depth: int = 9,
        deep_prompt_length: int = 4,
        temperature: float = 0.07,
        normal_words: Sequence[str] = ("object",),
        abnormal_words: Sequence[str] = ("damaged object",),
        shared_context: bool = False,
    ) -> None:
        kinds = parse_dpam_attention(dpam_attention)
        check_settings(image_size, temperature)
        backbone = build_backbone(model_name, pretrained)
        layers = len(backbone.clip.visual.transformer.resblocks)
        taps = check_feature_layers(feature_layers, layers)
        if not 1 <= dpam_start <= layers:
            raise ValueError(f"dpam_start={dpam_start} must lie between 1 and {layers}.")
        settings: dict[str, Any] = {
            "model_name": model_name if isinstance(model_name, str) else dict(model_name),
            "image_size": image_size,
            "feature_layers": taps,
            "dpam_start": dpam_start,
            "dpam_attention": dpam_attention,
            "prompt_length": prompt_length,
            "deep_prompt_depth": deep_prompt_depth,
            "deep_prompt_length": deep_prompt_length,
            "temperature": temperature,
            "normal_words": list(normal_words),
            "abnormal_words": list(abnormal_words),
            "shared_context": shared_context,
        }
        super().__init__(backbone, image_size=image_size, temperature=temperature, settings=settings)
        self._vision = DualPathVision(taps, dpam_start, kinds)
        self.prompts = PromptLearner(
            self.clip,
            prompt_length=prompt_length,
            deep_prompt_depth=deep_prompt_depth,
            deep_prompt_length=deep_prompt_length,
            normal_words=normal_words,
            abnormal_words=abnormal_words,
            shared_context=shared_context,
        )

    def _encode(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features of both vision paths (see :class:`DualPathVision`)."""
        return self._vision(visual, image)
