# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""VAND / APRIL-GAN, zero-shot (Chen et al., 2023): a prompt ensemble and learned linear layers on patch tokens."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.experiments.baselines.plain_clip import PlainVision
from monai_anomalyclip.experiments.baselines.prompt_ensemble import FixedPrompts, ensemble_prompts
from monai_anomalyclip.losses import Logits
from monai_anomalyclip.losses.glocal import published_focal
from monai_anomalyclip.networks.backbone import build_backbone
from monai_anomalyclip.networks.frozen_clip import (
    FrozenCLIPNetwork,
    check_feature_layers,
    check_settings,
    square_grid,
)

__all__ = ["VAND", "VANDLoss", "read_adapters"]

_PREFIX, _PUBLISHED_PREFIX = "adapters.", "fc."


def read_adapters(path: str | Path) -> Mapping[str, Tensor]:
    """Read linear layers: a bundle's ``model.pt``, a checkpoint of a tuning run, or the authors' published layout.

    Nothing in the file is executed. The published layout is ``{"trainable_linearlayer": {"fc.0.weight": ...}}``.

    Returns:
        ``adapters.<layer>.weight`` and ``adapters.<layer>.bias``; with the record of the backbone in the metadata where
        the file has one.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file holds no such layers, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There are no linear layers of VAND at '{path}': tune some (run training with configs/methods/vand.json "
            "as the last --config_file), or give the authors' released file as --prompts."
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or a pickle that would run code: torch refuses it
        raise ValueError(
            f"'{path}' cannot be read safely (weights_only) as linear layers of VAND: {type(error).__name__}."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if isinstance(content, Mapping) and isinstance(content.get("trainable_linearlayer"), Mapping):
        published = content["trainable_linearlayer"]
        content = {_PREFIX + str(key).removeprefix(_PUBLISHED_PREFIX): value for key, value in published.items()}
    if not isinstance(content, Mapping) or f"{_PREFIX}0.weight" not in content:
        raise ValueError(f"'{path}' holds no linear layers of VAND.")
    if not all(isinstance(value, Tensor) and bool(value.isfinite().all()) for value in content.values()):
        raise ValueError(f"The linear layers in '{path}' are not all tensors of finite values.")
    return content


class VAND(FrozenCLIPNetwork):
    """Maps the tokens of each tapped block into the joint space by a learned linear layer, and compares them there.

    Tapped tokens come straight from the residual stream, without ``ln_post``; the linear layer of block l gives
    F'_l = k_l F_l + b_l. The logits of a layer are upsampled bilinearly (``align_corners=True``) before the softmax;
    the map is the mean of the layers' abnormal probabilities (published: their sum). The score is CLIP's own, with the
    prompt ensemble; the layers do not change it. Tuned with :class:`VANDLoss`.

    Source: Chen, Han and Zhang, "A Zero-/Few-Shot Anomaly Classification and Segmentation Method for CVPR 2023 VAND
    Workshop Challenge Tracks 1 & 2" (arXiv 2305.17382), zero-shot method; details pinned to the published code.

    Args:
        model_name: open_clip model name, or a config dictionary (see
            :func:`~monai_anomalyclip.networks.build_backbone`).
        pretrained: open_clip tag, local weights file, or None for random weights (with a warning).
        image_size: side of the square input in pixels; a multiple of the patch size.
        feature_layers: vision blocks, from 1, whose tokens give the map; None for the ends of the tower's quarters,
            i.e. 6, 12, 18, 24 of 24, as published.
        temperature: softmax temperature.
        class_name: what the prompts speak of. The published figures use each data set's class names.
        published_backbone: whether CLIP is run as the published code runs it at 518 pixels: plain GELU in both towers,
            which OpenAI's weights were not trained with, and positions resized bicubically with antialiasing. The
            linear layers that the authors released were tuned so, and their figures were made so. By default CLIP is
            run as it was trained.

    Raises:
        ValueError: for settings that the backbone cannot take.
        FileNotFoundError: when the CLIP weights can be neither found nor fetched.

    Example::

        network = VAND(pretrained="ViT-L-14-336px.pt", class_name="bottle")
        network.load_prompts("vand_adapters.pt")
    """

    def __init__(
        self,
        model_name: str | Mapping[str, Any] = "ViT-L-14-336-quickgelu",
        pretrained: str | Path | None = "openai",
        *,
        image_size: int = 518,
        feature_layers: Sequence[int] | None = None,
        temperature: float = 0.01,
        class_name: str = "object",
        published_backbone: bool = False,
    ) -> None:
        check_settings(image_size, temperature)
        sentences = ensemble_prompts("vand", class_name)
        backbone = build_backbone(model_name, pretrained)
        layers = len(backbone.clip.visual.transformer.resblocks)
        if feature_layers is None:
            feature_layers = sorted({math.ceil(layers * quarter / 4) for quarter in (1, 2, 3, 4)})
        taps = check_feature_layers(feature_layers, layers)
        if published_backbone:
            for block in (*backbone.clip.visual.transformer.resblocks, *backbone.clip.transformer.resblocks):
                block.mlp.gelu = nn.GELU()
        settings = {
            # A name of its own: features of the two must not be taken for each other.
            "vision": "plain, raw tokens" + (", GELU, bicubic positions" if published_backbone else ""),
            "image_size": image_size,
            "feature_layers": taps,
            "temperature": temperature,
            "class_name": class_name,
            "published_backbone": published_backbone,
        }
        super().__init__(backbone, image_size=image_size, temperature=temperature, settings=settings)
        self._vision = PlainVision(taps, project=False, bicubic_positions=published_backbone)
        self.prompts = FixedPrompts(self.clip, *sentences)
        self.adapters = nn.ModuleList(nn.Linear(*self.clip.visual.proj.shape) for _ in taps)

    @property
    def patch_feature_width(self) -> int:
        """The tower's own width: tokens are mapped to the text's by the adapters."""
        return int(self.clip.visual.proj.shape[0])

    def _encode(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The image feature (B, D), and per tapped block its tokens (B, N, W), class token first."""
        return self._vision(visual, image)

    def logits(
        self, global_features: Tensor, patch_features: Sequence[Tensor], *, grid: tuple[int, int] | None = None
    ) -> Logits:
        """Similarity of the image and of the mapped patch tokens with the two prompts, before softmax.

        Args:
            global_features: (B, D), as :meth:`encode_image` gives them.
            patch_features: per tapped block (B, N, W), class token first.
            grid: patches per column and row; may be left out for square images.

        Returns:
            ``image_logits`` (B, 2) and ``patch_logits``, one (B, 2, h, w) tensor per tapped block.

        Raises:
            ValueError: when the number of patches does not match the grid.
        """
        own = next(self.adapters.parameters()).dtype  # features may have been cached in float16
        adapted = [adapter(tokens.to(own)) for adapter, tokens in zip(self.adapters, patch_features, strict=True)]
        return super().logits(global_features, adapted, grid=grid or square_grid(patch_features[0].shape[1] - 1))

    def _anomaly_map(self, logits: Logits, size: tuple[int, int]) -> Tensor:
        layers = [
            F.interpolate(layer, size=size, mode="bilinear", align_corners=True) for layer in logits["patch_logits"]
        ]
        return torch.stack([layer.softmax(dim=1)[:, 1:] for layer in layers]).mean(dim=0)

    def save_prompts(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the linear layers with their settings and the backbone's identity, as a bundle's ``model.pt``.

        Raises:
            FileExistsError: when the file exists and ``overwrite`` is false.
            ValueError: for another suffix than ``.pt``.
        """
        path = Path(path)
        if path.suffix != ".pt":
            raise ValueError(f"The linear layers are written as .pt, not as '{path.name}'.")
        if path.exists() and not overwrite:
            raise FileExistsError(f"'{path}' exists; give another name or overwrite=True.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(path) as unfinished:
            torch.save(self.state_dict(), unfinished)

    def load_prompts(self, path: str | Path, check_backbone: bool = True) -> None:
        """Load linear layers written by :meth:`save_prompts`, by a tuning run, or by the authors' code.

        Args:
            path: the file.
            check_backbone: whether layers tuned with another CLIP are refused; the published layout does not tell.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file holds no such layers, others than these, or the backbone is another one.

        Warns:
            UserWarning: when the file may belong to ``published_backbone=True`` and this network does not.
        """
        state = read_adapters(path)
        if getattr(state, "_metadata", None) is None and not self.settings["published_backbone"]:
            warnings.warn(
                f"'{path}' does not say how CLIP was run when these linear layers were tuned. Those that the authors "
                "released belong to published_backbone=True (plain GELU); here CLIP runs with QuickGELU.",
                stacklevel=2,
            )
        if not check_backbone:
            state = dict(state)  # without the record
        own = self.adapters.state_dict(prefix="adapters.")
        if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in own.items()}:
            theirs, ours = state["adapters.0.weight"].shape, own["adapters.0.weight"].shape
            raise ValueError(
                f"'{path}' holds {len(state) // 2} linear layers with weights {tuple(theirs)}, this network needs "
                f"{len(self.adapters)} with weights {tuple(ours)}: build VAND as they were tuned."
            )
        self.load_state_dict(state)

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Refuse linear layers of another backbone, of other blocks, or of a CLIP that was run otherwise.

        Raises:
            ValueError: when they were tuned with another CLIP, on other blocks or with the other activation.
        """
        super().check_record(record)
        theirs, ours = record.get("settings", {}).get("feature_layers"), self.settings["feature_layers"]
        if theirs is not None and list(theirs) != ours:
            raise ValueError(f"These linear layers were tuned on the blocks {list(theirs)}, this network taps {ours}.")
        as_published = bool(record.get("settings", {}).get("published_backbone", False))
        if "settings" in record and as_published != self.settings["published_backbone"]:
            raise ValueError(
                f"These linear layers were tuned with published_backbone={as_published}: build VAND with the same."
            )


class VANDLoss(_Loss):
    """Focal and Dice loss of the pixels, summed over the tapped blocks.

    The logits are upsampled bilinearly (``align_corners=True``) to the mask's size, then softmaxed. Focal: gamma 2,
    mean over pixels (see :func:`~monai_anomalyclip.losses.glocal.published_focal`). Dice: of the abnormal probability,
    per image over all its pixels, smooth 1.

    Source: arXiv 2305.17382, "Losses"; details pinned to the published code.

    Attributes:
        last_terms: the terms of the last call, detached scalars on the device: focal, dice_abnormal, total.

    Example::

        loss = VANDLoss()(network(image, output="logits"), {"label": mask, "has_label": known})
    """

    def __init__(self) -> None:
        super().__init__()
        self.last_terms: dict[str, Tensor] = {}
        self._dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, reduction="none")

    def forward(self, logits: Logits, target: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch.

        Args:
            logits: what ``VAND.logits`` returns; the image's are not used, as nothing that is learned changes them.
            target: ``image_label`` (B,), ``label`` (B, 1, H, W) of 0 and 1, and optionally ``has_label`` (B,), as for
                :class:`~monai_anomalyclip.losses.GlocalLoss`: images whose mask is unknown add nothing.

        Returns:
            scalar loss.

        Raises:
            ValueError: when the shapes do not match.
        """
        image_label, layers = target["image_label"].flatten(), logits["patch_logits"]
        label = target["label"].to(layers[0].dtype)
        if label.ndim != 4 or label.shape[:2] != (len(layers[0]), 1) or len(image_label) != len(label):
            raise ValueError(
                f"For {len(layers[0])} images the targets must be image_label (B,) and label (B, 1, H, W), got "
                f"{tuple(image_label.shape)} and {tuple(label.shape)}."
            )
        known = target.get("has_label")
        known = (image_label == 0) | label.flatten(1).any(dim=1) if known is None else known.flatten()
        weight = known.to(label.dtype) / known.sum().clamp(min=1)

        focal, dice = label.new_zeros(()), label.new_zeros(())
        for layer in layers:
            upsampled = F.interpolate(layer, label.shape[2:], mode="bilinear", align_corners=True)
            probability = upsampled.softmax(dim=1)
            true_class = torch.where(label > 0, probability[:, 1:], probability[:, :1])
            focal = focal + weight @ published_focal(true_class).flatten(1).mean(dim=1)
            dice = dice + weight @ self._dice(probability[:, 1:], label).flatten()
        total: Tensor = focal + dice
        self.last_terms = {"focal": focal.detach(), "dice_abnormal": dice.detach(), "total": total.detach()}
        return total
