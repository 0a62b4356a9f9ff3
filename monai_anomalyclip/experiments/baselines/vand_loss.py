# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The loss that VAND's linear layers are tuned with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_anomalyclip.losses import Logits
from monai_anomalyclip.losses.glocal import published_focal

__all__ = ["VANDLoss"]


class VANDLoss(_Loss):
    """Focal and Dice loss of the pixels, summed over the tapped blocks.

    The logits are upsampled bilinearly (``align_corners=True``) to the mask's size, then softmaxed. Focal: gamma 2,
    mean over pixels (see :func:`~monai_anomalyclip.losses.glocal.published_focal`). Dice: of the abnormal probability,
    per image over all its pixels, smooth 1.

    Source: arXiv 2305.17382, "Losses"; details pinned to the published code.

    Attributes:
        last_terms: the terms of the last call, detached scalars on the device: focal, dice_abnormal, total.
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
