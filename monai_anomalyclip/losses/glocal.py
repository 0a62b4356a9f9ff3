# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The global and local ("glocal") tuning loss.

Source: AnomalyCLIP (ICLR 2024), section 3.3 "Glocal context optimization", equation 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.loss import _Loss

__all__ = ["GlocalLoss", "Logits", "published_focal"]

_SMOOTH = 1e-5


class Logits(TypedDict):
    """Cosine similarity over temperature, before softmax; column 0 normal, column 1 abnormal."""

    image_logits: Tensor
    patch_logits: list[Tensor]


class GlocalLoss(_Loss):
    """Cross entropy of the image plus, over tapped layers, focal and two Dice losses of the pixels.

    ``global + lambda_local * sum over layers of (focal + dice_abnormal + dice_normal)``; the patch probabilities are
    upsampled bilinearly to the mask's size first. Focal: gamma 2, mean over pixels, with the published smoothing (see
    :func:`published_focal`). Dice: per image over all its pixels, smooth 1, once on the abnormal probability against
    the mask and once on the normal one against ``1 - mask``.

    Dice is that of MONAI's ``DiceLoss``. All terms are computed from one full-size map per layer instead of the dozen
    that MONAI's losses take.

    Args:
        lambda_local: weight of the pixel terms: 4 as released (one tapped layer), 1 as in the paper's text (four
            layers).
        dice_on_normal_images: whether images without an anomaly count in the Dice terms, as published. There the Dice
            of the abnormal class is at its worst unless nothing at all is predicted, so that on data that are mostly
            normal (slices of volumes) minimising it ends in maps of zeros: without it, the pixel terms are means over
            the images with an anomaly, and of normal ones the focal term is added, its sum divided by the batch size.

    Attributes:
        counted: which terms make up the total; derived classes leave some out, for ablations.
        last_terms: the terms of the last call, detached scalars on the device: global, focal, dice_abnormal,
            dice_normal, the pixel terms summed over layers and not yet weighted by ``lambda_local``.

    Example::

        target = {"image_label": label, "label": mask, "has_label": known}
        loss = GlocalLoss()(network(image, output="logits"), target)
    """

    counted: ClassVar[tuple[str, ...]] = ("global", "focal", "dice_abnormal", "dice_normal")

    def __init__(self, lambda_local: float = 4.0, dice_on_normal_images: bool = True) -> None:
        super().__init__()
        if not lambda_local >= 0:
            raise ValueError(f"lambda_local={lambda_local} must not be negative.")
        self.lambda_local = lambda_local
        self.dice_on_normal_images = dice_on_normal_images
        self.last_terms: dict[str, Tensor] = {}

    def forward(self, logits: Logits, target: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch.

        Args:
            logits: what ``AnomalyCLIP.logits`` returns: ``image_logits`` (B, 2), ``patch_logits`` [(B, 2, h, w), ...].
            target: ``image_label`` (B,) with 1 for anomalous, ``label`` (B, 1, H, W) of 0 and 1, and optionally
                ``has_label`` (B,), 0 for images whose mask is unknown. Without it, an anomalous image with an empty
                mask counts as one whose mask is unknown. Such images add nothing to the pixel terms, which are means
                over the others.

        Returns:
            scalar loss.

        Raises:
            ValueError: when the shapes do not match.
        """
        image_label, label = target["image_label"].flatten(), target["label"]
        image_logits, patch_logits = logits["image_logits"], logits["patch_logits"]
        if label.ndim != 4 or label.shape[:2] != (len(image_logits), 1) or len(image_label) != len(image_logits):
            raise ValueError(
                f"For {len(image_logits)} images the targets must be image_label (B,) and label (B, 1, H, W), got "
                f"{tuple(image_label.shape)} and {tuple(label.shape)}."
            )
        label = label.to(image_logits.dtype)
        known = target.get("has_label")
        known = (image_label == 0) | label.flatten(1).any(dim=1) if known is None else known.flatten()
        weight = known.to(label.dtype) / known.sum().clamp(min=1)

        abnormal = label.flatten(1).sum(dim=1)
        normal = label[0].numel() - abnormal
        dice_weight = weight
        if not self.dice_on_normal_images:
            marked = known.to(label.dtype) * (abnormal > 0)
            dice_weight = marked / marked.sum().clamp(min=1)
            weight = dice_weight + (known.to(label.dtype) - marked) / len(known)
        focal, dice_abnormal, dice_normal = (label.new_zeros(()) for _ in range(3))
        for layer in patch_logits:
            # Of full-size maps one is enough: the probability of each pixel's true class. The two classes add up to 1,
            # and upsampling keeps that.
            probability = F.interpolate(
                layer.softmax(dim=1)[:, 1:], label.shape[2:], mode="bilinear", align_corners=False
            )
            true_class = torch.where(label > 0, probability, 1 - probability)
            focal = focal + weight @ published_focal(true_class).flatten(1).mean(dim=1)
            found_abnormal = (true_class * label).flatten(1).sum(dim=1)
            found_normal = true_class.flatten(1).sum(dim=1) - found_abnormal
            called_abnormal = found_abnormal + normal - found_normal
            called_normal = found_normal + abnormal - found_abnormal
            dice_abnormal = dice_abnormal + dice_weight @ _dice(found_abnormal, called_abnormal + abnormal)
            dice_normal = dice_normal + dice_weight @ _dice(found_normal, called_normal + normal)
        terms = {
            "global": F.cross_entropy(image_logits, image_label.long()),
            "focal": focal,
            "dice_abnormal": dice_abnormal,
            "dice_normal": dice_normal,
        }
        pixel_terms = [terms[name] for name in self.counted if name != "global"]
        total = self.lambda_local * torch.stack(pixel_terms).sum()
        if "global" in self.counted:
            total = terms["global"] + total
        self.last_terms = {name: term.detach() for name, term in {**terms, "total": total}.items()}
        return total


def published_focal(true_class: Tensor) -> Tensor:
    """Focal loss of every pixel, gamma 2, smoothed as AnomalyCLIP's and VAND's authors smooth it.

    The one-hot target is clamped to [s, 1 - s] and s is added to its product with the probabilities, s = 1e-5, which
    for two classes is p (1 - 2 s) + 2 s. MONAI's ``FocalLoss`` smooths nothing: at pixels that are certain the two
    differ by about 0.1 %.

    Args:
        true_class: probability of each pixel's true class, in [0, 1], of any shape.

    Returns:
        losses of the same shape, not negative, at most -log(2 s) = 10.8.

    Example::

        published_focal(torch.tensor([0.5]))  # tensor([0.1733])
    """
    smoothed = true_class * (1 - 2 * _SMOOTH) + 2 * _SMOOTH
    return -(1 - smoothed).square() * smoothed.log()


def _dice(overlap: Tensor, sizes: Tensor) -> Tensor:
    """Dice loss (B,), smoothed by 1, of the overlap (B,) of two regions and the sum of their sizes (B,)."""
    return 1 - (2 * overlap + 1) / (sizes + 1)
