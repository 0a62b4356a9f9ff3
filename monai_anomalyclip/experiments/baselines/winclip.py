# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""WinCLIP, zero-shot (Jeong et al., CVPR 2023): CLIP on windows of patches, aggregated harmonically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from monai_anomalyclip.experiments.baselines.prompt_ensemble import FixedPrompts, ensemble_prompts
from monai_anomalyclip.losses import Logits
from monai_anomalyclip.networks.backbone import build_backbone
from monai_anomalyclip.networks.dpam import TokenEmbedding
from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork, check_settings, cosine, square_grid

__all__ = ["WinCLIP", "window_harmonic_mean", "window_patches"]


def window_patches(rows: int, columns: int, scale: int) -> Tensor:
    """Which patches each window covers; windows slide by one patch.

    Source: WinCLIP (CVPR 2023), section 4.2, the masks w_ij.

    Args:
        rows: patches per column of the grid.
        columns: patches per row of the grid.
        scale: side of a window, in patches.

    Returns:
        row-major numbers of the patches, ((rows - scale + 1) (columns - scale + 1), scale²), windows row-major.

    Raises:
        ValueError: when no window fits.
    """
    if not 1 <= scale <= min(rows, columns):
        raise ValueError(f"Windows of {scale} x {scale} patches do not fit a grid of {rows} x {columns} patches.")
    numbers = torch.arange(rows * columns).reshape(rows, columns)
    return numbers.unfold(0, scale, 1).unfold(1, scale, 1).reshape(-1, scale * scale)


def window_harmonic_mean(scores: Tensor, scale: int) -> Tensor:
    """Score of each patch: the harmonic mean over all windows that cover it.

    Source: WinCLIP (CVPR 2023), section 4.2, "Harmonic aggregation of windows".

    Args:
        scores: positive scores of the windows, (B, 1, rows - scale + 1, columns - scale + 1).
        scale: side of a window, in patches.

    Returns:
        (B, 1, rows, columns).
    """
    # Each patch sees the scale x scale window positions around it; outside the grid there are none. Pooling sums
    # exactly, where a convolution may be rounded to TF32.
    beyond = (scale - 1,) * 4
    reciprocals = F.avg_pool2d(F.pad(1 / scores, beyond), scale, stride=1)
    counts = F.avg_pool2d(F.pad(torch.ones_like(scores), beyond), scale, stride=1)
    return counts / reciprocals


class WinCLIP(FrozenCLIPNetwork):
    """Scores each window of 2 x 2 and of 3 x 3 patches as an image of its own. Nothing is learned.

    For every window the vision tower sees the class token and the window's patches only, at their own positions
    (section 4.2); the patches are embedded once for all windows. At each scale a patch gets the harmonic mean of the
    abnormal probabilities of the windows that cover it. The map is the harmonic mean over the scales and the
    image-level probability, upsampled bilinearly; the score is the image-level probability.

    Source: WinCLIP (CVPR 2023), sections 4.1 (compositional prompt ensemble, score) and 4.2 (windows, harmonic
    aggregation, multi-scale aggregation).

    Args:
        model_name: open_clip model name, or a config dictionary (see
            :func:`~monai_anomalyclip.networks.build_backbone`).
        pretrained: open_clip tag, local weights file, or None for random weights (with a warning).
        image_size: side of the square input in pixels; a multiple of the patch size.
        temperature: softmax temperature.
        scales: sides of the windows, in patches.
        window_batch_size: most windows that go through the tower at once; limits the memory, changes no result.
        class_name: what the prompts speak of. The published figures use each data set's class names.
        ensemble: "winclip" for the 22 templates that the paper prints, "winclip_21" for those of the re-implementations
            (see :func:`ensemble_prompts`).
        unit_sentences: whether each sentence's feature is normalised before the mean. The paper does not say; every
            re-implementation, that of AnomalyCLIP's authors among them, averages them as they are.

    Raises:
        ValueError: for settings that the backbone cannot take.
        FileNotFoundError: when the CLIP weights can be neither found nor fetched.

    Example::

        network = WinCLIP("ViT-B-16-plus-240", "laion400m_e31", image_size=240)
        anomaly_map = network(image)
    """

    not_exportable = "its windows are cut into parts that depend on the batch size, which is free"

    def __init__(
        self,
        model_name: str | Mapping[str, Any] = "ViT-L-14-336-quickgelu",
        pretrained: str | Path | None = "openai",
        *,
        image_size: int = 518,
        temperature: float = 0.07,
        scales: Sequence[int] = (2, 3),
        window_batch_size: int = 1024,
        class_name: str = "object",
        ensemble: str = "winclip",
        unit_sentences: bool = False,
    ) -> None:
        check_settings(image_size, temperature)
        sentences = ensemble_prompts(ensemble, class_name)
        sides = [int(scale) for scale in scales]
        if not sides or min(sides) < 1:
            raise ValueError(f"scales={tuple(scales)} must be one or more sides of windows in patches, such as (2, 3).")
        if window_batch_size < 1:
            raise ValueError(f"window_batch_size={window_batch_size} must be at least 1.")
        settings = {
            "image_size": image_size,
            "temperature": temperature,
            "scales": sides,
            "class_name": class_name,
            "ensemble": ensemble,
            "unit_sentences": unit_sentences,
        }
        backbone = build_backbone(model_name, pretrained)
        super().__init__(backbone, image_size=image_size, temperature=temperature, settings=settings)
        grid = image_size // self.patch_size
        window_patches(grid, grid, max(sides))  # refuses windows that do not fit
        self.scales = tuple(sides)
        self.window_batch_size = window_batch_size
        self.prompts = FixedPrompts(self.clip, *sentences, unit_sentences=unit_sentences)
        self._embedding = TokenEmbedding()

    def _encode(self, visual: VisionTransformer, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features of the image (B, D), and per scale those of its windows (B, windows, D), row-major."""
        tokens = self._embedding.embed(visual, image)
        rows, columns = image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size
        windows = [self._encode_windows(visual, tokens, window_patches(rows, columns, scale)) for scale in self.scales]
        return _class_feature(visual, tokens), windows

    def _encode_windows(self, visual: VisionTransformer, tokens: Tensor, patches: Tensor) -> Tensor:
        batch, _, width = tokens.shape
        chosen = F.pad(patches + 1, (1, 0)).to(tokens.device)  # the class token is number 0
        step = max(1, self.window_batch_size // batch)
        features = []
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            sequences = tokens[:, part].reshape(-1, part.shape[1], width)
            features.append(_class_feature(visual, sequences).reshape(batch, len(part), -1))
        return torch.cat(features, dim=1)

    def logits(
        self, global_features: Tensor, patch_features: Sequence[Tensor], *, grid: tuple[int, int] | None = None
    ) -> Logits:
        """Similarity of the image and of its windows with the two prompts: cosine over temperature, before softmax.

        Args:
            global_features: (B, D), as :meth:`encode_image` gives them.
            patch_features: per scale (B, windows, D).
            grid: patches per column and row; may be left out for square images.

        Returns:
            ``image_logits`` (B, 2) and ``patch_logits``, one (B, 2, rows - scale + 1, columns - scale + 1) tensor per
            scale.

        Raises:
            ValueError: when the number of windows does not match the grid.
        """
        text = self.encode_prompts()
        with torch.autocast(text.device.type, enabled=False):
            image_logits = cosine(global_features, text) / self.temperature
            patch_logits = []
            for scale, features in zip(self.scales, patch_features, strict=True):
                count = features.shape[1]
                height, width = (side - scale + 1 for side in grid) if grid else square_grid(count)
                if height * width != count:
                    raise ValueError(f"{count} windows do not form a grid of {height} x {width}.")
                similarity = cosine(features, text) / self.temperature
                patch_logits.append(similarity.transpose(1, 2).reshape(-1, 2, height, width))
        return {"image_logits": image_logits, "patch_logits": patch_logits}

    def _anomaly_map(self, logits: Logits, size: tuple[int, int]) -> Tensor:
        image = logits["image_logits"].softmax(dim=1)[:, 1, None, None, None]
        scored = [
            window_harmonic_mean(layer.softmax(dim=1)[:, 1:], scale)
            for scale, layer in zip(self.scales, logits["patch_logits"], strict=True)
        ]
        reciprocals = sum((1 / score for score in scored), start=1 / image)
        return F.interpolate((1 + len(scored)) / reciprocals, size=size, mode="bilinear", align_corners=False)


def _class_feature(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Embedded tokens (B, N, W), class token first, to the class token's feature (B, D)."""
    feature: Tensor = visual.ln_post(visual.transformer(tokens)[:, 0]) @ visual.proj
    return feature
